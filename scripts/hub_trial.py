"""Try thirty seats: a real JupyterHub on loopback, its proxy, and learners who run notebook 05.

    /usr/bin/python3 scripts/hub_trial.py --environment DIR --shared CACHE --output trial.json

DIR gets JupyterHub, cloudlab and the proxy (from PyPI and npm) where they are missing, for a Python
that all users can start.  CACHE gets an image and a snapshot where they are missing.  Every learner
has a user number of their own without an account, logs in through the proxy, starts a server, opens
the notebook and runs all cells over a websocket; some boot live, the others play recordings.  At the
end all log out, some of them in the middle of a boot, and whatever is left of them is a failure.
Needs root and Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "05-how-it-grows.ipynb"

#: How many machines all seats together may run at a time, in a folder that all can write to.
CAP = {"CLOUDLAB_SLOTS": "{folder}:{count}"}

#: The user number of learner 0; there is no account with it or the following ones.
FIRST_UID = 20_000
PASSWORD = "on loopback only"

#: How often JupyterLab connects to a kernel before it asks the user.
CONNECTIONS = 7

#: Seconds that bound a failure.
PATIENCE_S = 3600

HUB_CONFIG = """
import os
from jupyterhub.spawner import SimpleLocalProcessSpawner

class Seat(SimpleLocalProcessSpawner):
    "Runs a server as a user number without an account."

    def make_preexec_fn(self, name):
        uid, home = {first_uid} + int(name.removeprefix("learner")), self.home_dir

        def become():
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.umask(0o077)
            os.chdir(home)

        return become

def environment(spawner):
    return "live" if int(spawner.user.name.removeprefix("learner")) < {live} else "replay"

c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {port} + 1
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.command = ["node", "{proxy}"]
c.JupyterHub.spawner_class = Seat
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "{password}"
c.Authenticator.allow_all = True
c.JupyterHub.shutdown_on_logout = True
c.JupyterHub.cleanup_servers = True
c.SimpleLocalProcessSpawner.home_dir_template = "{homes}/{{username}}"
c.Spawner.cmd = ["{environment}/bin/jupyterhub-singleuser"]
c.Spawner.environment = {variables} | {{"CLOUDLAB_MODE": environment}}
# Thirty servers start at once on few cores.
c.Spawner.start_timeout = c.Spawner.http_timeout = 600
"""


@dataclass
class Seat:
    """What one learner saw, in seconds and bytes."""

    number: int
    live: bool
    server_s: float = 0.0
    notebook_s: float = 0.0
    run_all_s: float = 0.0
    cells: int = 0
    failed: list[str] = field(default_factory=list)
    #: From running the boot cell to the first console line, and to the cell's end.
    waited_s: float = 0.0
    booting_s: float = 0.0
    boots: list[list[object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    logout_s: float = 0.0
    cpu_s: float = 0.0
    #: Kind of process -> proportional set size once all cells had run, and the most at any time.
    pss: dict[str, int] = field(default_factory=dict)
    most_pss: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"learner{self.number:02d}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--environment", type=Path, required=True, help="folder, created if missing"
    )
    parser.add_argument("--shared", type=Path, required=True, help="cache that all seats read")
    parser.add_argument("--output", type=Path, default=Path("build/hub-trial.json"))
    parser.add_argument("--seats", type=int, default=30)
    parser.add_argument("--live", type=int, default=10)
    parser.add_argument("--leave", type=int, default=3, help="how many log out while booting")
    parser.add_argument("--cap", type=int, default=2, help="machines at a time; 0: no limit")
    parser.add_argument("--keep", action="store_true", help="keep homes and logs")
    args = parser.parse_args()
    python = install(args.environment.absolute())
    if Path(sys.prefix) != args.environment.absolute():
        # aiohttp is in that environment only.
        os.execv(python, [str(python), __file__, *sys.argv[1:]])
    work = Path(tempfile.mkdtemp(prefix="cloudlab-hub-"))
    work.chmod(0o755)
    try:
        report = trial(args, work)
    finally:
        if not args.keep:
            shutil.rmtree(work)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    return show(report)


def install(environment: Path) -> Path:
    """Create the environment of hub and seats, and return its Python."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    if not (environment / "bin" / "jupyterhub").exists():
        pins = {f"PIP_{kind}CONSTRAINT": str(ROOT / "constraints.txt") for kind in ("", "BUILD_")}
        wanted = [f"{ROOT}[notebook]", "jupyterhub", "aiohttp"]
        argv = [python, "-m", "pip", "install", "--quiet", *wanted]
        subprocess.run(argv, env=os.environ | pins, check=True)
    if not proxy(environment).exists():
        argv = ["npm", "install", "--silent", "--prefix", environment, "configurable-http-proxy"]
        subprocess.run(argv, check=True)
    return python


def proxy(environment: Path) -> Path:
    return environment / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"


def trial(args: argparse.Namespace, work: Path) -> dict[str, object]:
    shared = prepare_shared(args, work)
    seats = [Seat(number, live=number < args.live) for number in range(args.seats)]
    for seat in seats:
        make_home(work, seat)
    variables = {"CLOUDLAB_SHARED": str(shared)}
    if args.cap:
        slots = work / "slots"
        slots.mkdir()
        slots.chmod(0o1777)
        known = {"folder": slots, "count": args.cap}
        variables |= {name: value.format(**known) for name, value in CAP.items()}
    port = 8600
    config = work / "jupyterhub_config.py"
    config.write_text(
        HUB_CONFIG.format(
            first_uid=FIRST_UID,
            live=args.live,
            port=port,
            api_port=port + 2,
            proxy=proxy(args.environment.absolute()),
            password=PASSWORD,
            homes=work / "homes",
            environment=args.environment.absolute(),
            variables=variables,
        )
    )
    sampler, broke_off = Sampler(seats), ""
    with hub(args.environment.absolute(), work, port) as base:
        try:
            asyncio.run(class_hour(base, seats, sampler, leave=args.leave))
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (told in the report)
            # What was measured until then is worth keeping; the hub ends all servers.
            broke_off = repr(error)
            sampler.settle()
        gone_s = 0.0 if broke_off else wait_until_gone()
        left = [] if broke_off else left_behind(work)
    return {
        "broke_off": broke_off,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "variables": variables,
        "versions": versions(args.environment.absolute()),
        "seats": [asdict(seat) for seat in seats],
        "host": sampler.host,
        "gone_s": gone_s,
        "left": left,
    }


def prepare_shared(args: argparse.Namespace, work: Path) -> Path:
    """Create the cache that all seats read, as docs/teaching-thirty.md says, and the course."""
    shared = args.shared.absolute()
    env = os.environ | {"CLOUDLAB_CACHE": str(shared)}
    cloudlab = args.environment.absolute() / "bin" / "cloudlab"
    # The first run takes a snapshot.
    subprocess.run([cloudlab, "run", "--output", work / "first"], env=env, check=True)
    read = [folder for name in ("images", "snapshots") if (folder := shared / name).exists()]
    subprocess.run(["chmod", "-R", "a+rX", *read], check=True)
    course = [cloudlab, "lab", "--copy-only", "--folder", work / "course"]
    subprocess.run(course, env=env, check=True)
    return shared


def make_home(work: Path, seat: Seat) -> None:
    home = work / "homes" / seat.name
    home.mkdir(parents=True)
    shutil.copytree(work / "course", home / "cloudlab-course")
    for path in (home, *home.rglob("*")):
        os.chown(path, FIRST_UID + seat.number, FIRST_UID + seat.number)
    home.chmod(0o700)


@contextlib.contextmanager
def hub(environment: Path, work: Path, port: int):
    """Run the hub and its proxy; yield the proxy's address."""
    path = os.pathsep.join([str(environment / "bin"), os.environ["PATH"]])
    argv = [environment / "bin" / "jupyterhub", "-f", work / "jupyterhub_config.py"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("CLOUDLAB_")} | {"PATH": path}
    with (work / "hub.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=work, env=env, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    except BaseException:
        print((work / "hub.log").read_text()[-8000:], file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


def versions(environment: Path) -> dict[str, str]:
    named = ("jupyterhub", "jupyterlab", "jupyter_server", "ipykernel", "cloudlab")
    code = f"from importlib.metadata import version\nfor n in {named}: print(n, version(n))"
    argv = [environment / "bin" / "python", "-c", code]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    package = json.loads((proxy(environment).parents[1] / "package.json").read_text())
    return dict(line.split() for line in lines) | {"configurable-http-proxy": package["version"]}


# --- the learners -------------------------------------------------------------------------------


async def class_hour(base: str, seats: list[Seat], sampler: Sampler, *, leave: int) -> None:
    import aiohttp

    await until_answers(f"{base}/hub/login")
    sampling = asyncio.create_task(sampler.run())
    async with contextlib.AsyncExitStack() as stack:
        learners = []
        for seat in seats:
            jar = aiohttp.CookieJar(unsafe=True)
            timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(cookie_jar=jar, timeout=timeout)
            )
            learners.append(Learner(base, seat, session))
        done = await asyncio.gather(*(one.lesson() for one in learners), return_exceptions=True)
        for seat, error in zip(seats, done, strict=True):
            if isinstance(error, BaseException):
                seat.failed.append(f"{type(error).__name__}: {error}")
        sampler.settle()
        # Some log out in the middle of a boot, or of waiting for one.
        leaving = [one for one in learners if one.seat.live and one.kernel][:leave]
        for learner in leaving:
            await learner.send("course.boot_all({'default': course.Prediction('fills', 'fills')})")
        await asyncio.sleep(5 if leaving else 0)
        sampler.host["qemu_when_leaving"] = sum(kind == "qemu" for _, kind, _ in processes())
        left = await asyncio.gather(*(one.log_out() for one in learners), return_exceptions=True)
        for seat, error in zip(seats, left, strict=True):
            if isinstance(error, BaseException):
                seat.failed.append(f"logging out: {type(error).__name__}: {error}")
    sampling.cancel()


async def until_answers(url: str) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        for _ in range(240):
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.5)
    raise TimeoutError(url)


class Learner:
    """A learner's browser: one login, one server, one kernel."""

    def __init__(self, base: str, seat: Seat, session) -> None:
        self.base, self.seat, self.session = base, seat, session
        self.home = f"{base}/user/{seat.name}"
        self.kernel = ""
        self.socket = None
        self.messages: asyncio.Queue[str] = asyncio.Queue()
        self.reading = None

    async def lesson(self) -> None:
        """Log in, start the server, open the notebook, run all cells."""
        seat, start_s = self.seat, time.monotonic()
        await self.log_in()
        await self.start_server()
        seat.server_s = time.monotonic() - start_s
        cells = await self.open_notebook()
        seat.notebook_s = time.monotonic() - start_s - seat.server_s
        start_s = time.monotonic()
        for cell in cells:
            await self.run_cell(cell)
        seat.run_all_s = time.monotonic() - start_s
        seat.cells = len(cells)
        await self.look_at_runs()

    async def log_in(self) -> None:
        url = f"{self.base}/hub/login"
        async with self.session.get(url):
            pass
        form = {"username": self.seat.name, "password": PASSWORD, "_xsrf": self.xsrf(url)}
        async with self.session.post(url, data=form) as response:
            assert response.status == 200, (response.status, await response.text())

    async def start_server(self) -> None:
        async with self.session.get(f"{self.base}/hub/spawn") as response:
            assert response.status == 200, (response.status, await response.text())
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            # While the server starts, the hub answers with a page that says so.
            async with self.session.get(f"{self.home}/lab") as response:
                if response.status == 200 and response.url.path.startswith(
                    f"/user/{self.seat.name}/"
                ):
                    return
            await asyncio.sleep(1)
        raise TimeoutError("the server did not start")

    async def open_notebook(self) -> list[str]:
        """Start the notebook's kernel and return the code of its cells."""
        path = f"cloudlab-course/{NOTEBOOK}"
        async with self.session.get(f"{self.home}/api/contents/{path}?content=1") as response:
            response.raise_for_status()
            notebook = (await response.json())["content"]
        about = {"path": path, "name": NOTEBOOK, "type": "notebook", "kernel": {"name": "python3"}}
        headers = {"X-XSRFToken": self.xsrf(f"{self.home}/")}
        url = f"{self.home}/api/sessions"
        async with self.session.post(url, json=about, headers=headers) as response:
            assert response.status == 201, (response.status, await response.text())
            self.kernel = (await response.json())["kernel"]["id"]
        url = f"{self.home}/api/kernels/{self.kernel}/channels?session_id={uuid.uuid4().hex}"
        await self.connect(url)
        code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
        empty, made = 'partition="", filesystem=""', 'partition="fills", filesystem="fills"'
        assert any(empty in cell for cell in code)
        # In live mode only what has a prediction is booted.
        return [cell.replace(empty, made) for cell in code]

    async def connect(self, url: str) -> None:
        """Connect to the kernel, again where the server gave up waiting for it, as JupyterLab does."""
        for _ in range(CONNECTIONS):
            self.messages = asyncio.Queue()
            self.socket = await self.session.ws_connect(url, max_msg_size=0)
            self.reading = asyncio.create_task(self.read())
            try:
                await self.run_cell("")
            except ConnectionError as error:
                self.seat.notes.append(str(error))
            else:
                return
        raise TimeoutError("the kernel did not answer")

    async def read(self) -> None:
        """Read all the time: the server ends a connection whose other end answers no ping."""
        async for got in self.socket:
            # What is no text is the picture of a panel.
            if isinstance(got.data, str):
                await self.messages.put(got.data)
        await self.messages.put("")

    async def send(self, code: str) -> str:
        """Ask the kernel to run a cell; return the message's number."""
        ident = uuid.uuid4().hex
        header = {"msg_id": ident, "username": "", "session": ident, "msg_type": "execute_request",
                  "version": "5.3", "date": ""}  # fmt: skip
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                   "allow_stdin": False, "stop_on_error": False}  # fmt: skip
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content,
                   "channel": "shell", "buffers": []}  # fmt: skip
        await self.socket.send_str(json.dumps(message))
        return ident

    async def run_cell(self, code: str) -> str:
        """Run a cell to its end and return the text of its outputs."""
        seat, start_s, boots = self.seat, time.monotonic(), "boot_all" in code
        ident, texts = await self.send(code), []
        async with asyncio.timeout(PATIENCE_S):
            while True:
                data = await self.messages.get()
                if not data:
                    raise ConnectionError(f"the connection ended: {self.socket.close_code}")
                message = json.loads(data)
                if message["parent_header"].get("msg_id") != ident:
                    continue
                content, kind = message["content"], message["header"]["msg_type"]
                text = content.get("text") or content.get("data", {}).get("text/plain", "")
                texts.append(str(text))
                if kind == "error":
                    seat.failed.append(f"{content['ename']}: {content['evalue']}")
                if boots and seat.live:
                    self.note(str(text), time.monotonic() - start_s)
                if kind == "status" and content["execution_state"] == "idle":
                    break
        if boots:
            seat.booting_s = time.monotonic() - start_s
        return "".join(texts)

    def note(self, text: str, at_s: float) -> None:
        """Keep when a boot's first console line came, and what was shown before."""
        if re.search(r"  \d+ s  ", text):
            self.seat.waited_s = self.seat.waited_s or at_s
        elif text.strip() and len(self.seat.notes) < 10:
            self.seat.notes.append(f"{at_s:.0f} s: {text}")

    async def look_at_runs(self) -> None:
        code = (
            "import json\nprint('RUNS', json.dumps([[r.scenario, r.record.start.kind, r.record.took_s, "
            "r.is_recording, r.root_sizes('after').partition_bytes, r.record.start.why] for r in runs]))"
        )
        said = await self.run_cell(code)
        found = re.search(r"RUNS (\[.*\])", said)
        self.seat.boots = json.loads(found.group(1)) if found else []
        if [boot[3] for boot in self.seat.boots] != [not self.seat.live] * 4:
            self.seat.failed.append(f"these are not four runs of its mode: {self.seat.boots}")

    async def log_out(self) -> None:
        start_s = time.monotonic()
        async with self.session.get(f"{self.base}/hub/logout") as response:
            response.raise_for_status()
        if self.socket is not None:
            await self.socket.close()
        self.seat.logout_s = time.monotonic() - start_s

    def xsrf(self, url: str) -> str:
        from yarl import URL

        return self.session.cookie_jar.filter_cookies(URL(url))["_xsrf"].value


# --- what the host saw --------------------------------------------------------------------------


def processes():
    """Yield the number of the seat, the kind and the process of all that learners run."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            number = process.uids().real - FIRST_UID
            if 0 <= number < 1000:
                yield number, kind_of(process), process


def kind_of(process) -> str:
    if Path(process.exe()).name.startswith("qemu-system"):
        return "qemu"
    # Only the first words: those of a machine's supervisor name QEMU, too.
    words = " ".join(process.cmdline()[:3])
    kinds = {"jupyterhub-singleuser": "server", "ipykernel": "kernel"}
    return next((kind for word, kind in kinds.items() if word in words), "other")


def pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE).group(1)) << 10
    return 0


def busy_s() -> float:
    import psutil

    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait


class Sampler:
    """Measures the learners' processes and the host, every few seconds."""

    def __init__(self, seats: list[Seat]) -> None:
        self.seats = {seat.number: seat for seat in seats}
        self.host: dict[str, float] = {"most_qemu": 0, "least_available": float("inf")}
        self.host["load_before"] = self.host["most_load"] = os.getloadavg()[0]
        self.start_s, self.busy_s = time.monotonic(), busy_s()

    async def run(self) -> None:
        while True:
            self.sample()
            await asyncio.sleep(3)

    def sample(self) -> dict[int, dict[str, int]]:
        import psutil

        found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        machines = 0
        for number, kind, process in processes():
            found[number][kind] += pss(process.pid)
            machines += kind == "qemu"
        for number, by_kind in found.items():
            most = self.seats[number].most_pss
            for kind, size in by_kind.items():
                most[kind] = max(most.get(kind, 0), size)
        host = self.host
        host["most_qemu"] = max(host["most_qemu"], machines)
        available = psutil.virtual_memory().available
        host["least_available"] = min(host["least_available"], available)
        host["most_load"] = max(host["most_load"], os.getloadavg()[0])
        return found

    def settle(self) -> None:
        """Measure once all cells have run and no machine does."""
        import psutil

        for number, by_kind in self.sample().items():
            self.seats[number].pss = dict(by_kind)
        self.host["settled_available"] = psutil.virtual_memory().available
        # Of all cores; the rest of it is the hub's, and other work of this host.
        self.host["busy_s"] = busy_s() - self.busy_s
        self.host["lasted_s"] = time.monotonic() - self.start_s
        for number, _, process in processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self.seats[number].cpu_s += sum(times[:4])


def wait_until_gone() -> float:
    """Return how many seconds the learners' last process took to end."""
    start_s = time.monotonic()
    while list(processes()) and time.monotonic() - start_s < 120:
        time.sleep(0.2)
    return time.monotonic() - start_s


def left_behind(work: Path) -> list[str]:
    """Return the learners' processes, and their files outside their homes or of a machine."""
    found = [f"process {p.pid}: {' '.join(p.cmdline())}" for _, _, p in processes()]
    last = FIRST_UID + 1000
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run"):
        argv = ["find", folder, "-path", work, "-prune", "-o",
                "-uid", f"+{FIRST_UID - 1}", "-uid", f"-{last}", "-print"]  # fmt: skip
        found += subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    for pattern in ("overlay.qcow2", "seed.iso", "*.part"):
        found += map(str, (work / "homes").rglob(pattern))
    found += map(str, (work / "homes").glob("*/.cache/cloudlab/running/*"))
    return found


# --- the report ---------------------------------------------------------------------------------


def show(report: dict) -> int:
    """Print what was measured; return 1 if a seat failed or something is left."""
    seats = [Seat(**seat) for seat in report["seats"]]
    for kind in ("replay", "live"):
        if group := [seat for seat in seats if seat.live is (kind == "live")]:
            failed = sum(bool(seat.failed) for seat in group)
            print(f"{kind}: {len(group)} seats, {failed} failed")
            show_group(group)
    problems = [f"FAILED {seat.name}: {text[:400]}" for seat in seats for text in seat.failed]
    problems += [f"LEFT {left}" for left in report["left"]]
    problems += [f"BROKE OFF {report['broke_off']}"] if report["broke_off"] else []
    print(report["host"], f"all gone after {report['gone_s']:.1f} s", *problems, sep="\n")
    return 1 if problems else 0


def show_group(group: list[Seat]) -> None:
    times = ["server_s", "notebook_s", "run_all_s", "cpu_s", "logout_s"]
    for name in [*times, "waited_s", "booting_s"] if group[0].live else times:
        print(f"  {name:11} {spread([getattr(seat, name) for seat in group])}")
    for when in ("pss", "most_pss"):
        sizes = [getattr(seat, when) for seat in group]
        for part in sorted({key for one in sizes for key in one}):
            values = [one[part] / 2**20 for one in sizes if part in one]
            print(f"  {when} {part} (MiB, {len(values)} seats)  {spread(values)}")
    if took := [boot[2] for seat in group for boot in seat.boots if seat.live and boot[2]]:
        kinds = sorted({boot[1] for seat in group for boot in seat.boots})
        print(f"  {len(took)} boots, {', '.join(kinds)}: {spread(took)}")


def spread(values: list[float]) -> str:
    return f"least {min(values):.1f}, median {median(values):.1f}, most {max(values):.1f}"


if __name__ == "__main__":
    sys.exit(main())
