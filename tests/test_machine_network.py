"""What a guest reaches of its host: real passt, spoken to in Ethernet frames."""

import os
import shutil
import socket
import struct
import subprocess

import psutil
import pytest
from guests import fake_qemu, guest_options, report

from cloudlab.errors import ConsoleClosedError
from cloudlab.machine import network, registry
from cloudlab.machine.config import Network
from cloudlab.machine.network import Passt, network_warning
from cloudlab.run.boot import boot
from cloudlab.run.record import RecordedNetwork
from cloudlab.tools import host_arch

needs_passt = pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")

_OUR_MAC = bytes.fromhex("525400123456")


def _checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", total ^ 0xFFFF)


def _connect_frame(source, gateway, port):
    """Return an Ethernet frame with the first packet of a TCP connection."""
    ends = socket.inet_aton(source) + socket.inet_aton(gateway)
    tcp = struct.pack(">HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 65535, 0, 0)
    tcp = tcp[:16] + _checksum(ends + struct.pack(">HH", 6, len(tcp)) + tcp) + tcp[18:]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + ends
    ip = ip[:10] + _checksum(ip) + ip[12:]
    return b"\xff" * 6 + _OUR_MAC + b"\x08\x00" + ip + tcp


@pytest.fixture
def gateway():
    """This host's own address and its gateway's, which passt gives the guest as well."""
    words = subprocess.run(
        ["ip", "-4", "route", "get", "192.0.2.254"], check=False, capture_output=True, text=True
    ).stdout.split()
    routes = subprocess.run(
        ["ip", "-4", "route", "show", "default"], check=False, capture_output=True, text=True
    ).stdout.split()
    if "via" not in routes or "src" not in words:
        pytest.skip("this host has no default route for passt to copy")
    return words[words.index("src") + 1], routes[routes.index("via") + 1]


def _reaches_the_loopback_address(gateway):
    source, address = gateway
    with socket.create_server(("127.0.0.1", 0)) as service, Passt() as passt:
        service.settimeout(1.0)
        frame = _connect_frame(source, address, service.getsockname()[1])
        for _ in range(3):
            passt.socket.sendall(struct.pack(">I", len(frame)) + frame)
        try:
            service.accept()[0].close()
        except TimeoutError:
            return False
        return True


@needs_passt
def test_the_hosts_loopback_address_is_out_of_the_guests_reach(gateway, monkeypatch):
    assert not _reaches_the_loopback_address(gateway)
    options = [option for option in network._OPTIONS if option != "--no-map-gw"]
    monkeypatch.setattr(network, "_OPTIONS", options)
    assert _reaches_the_loopback_address(gateway), "which shows that the option prevents it"


@needs_passt
def test_passt_ends_with_its_socket():
    passt = Passt()
    process = psutil.Process(passt._process.pid)
    assert process.status() != psutil.STATUS_ZOMBIE
    passt.close()
    passt.close()
    assert not process.is_running()


@needs_passt
@pytest.mark.vm
@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_machine_has_passts_network_and_leaves_no_passt(how, tmp_path, own_cache):
    seen, remarks = {}, []

    def look(event):
        remarks.extend([event.note] if event.is_remark else [])
        if event.note == "launched":
            [machine] = registry.list_running()
            seen["qemu"] = psutil.Process(machine.qemu_pid).cmdline()
            if how == "is killed":
                os.kill(machine.qemu_pid, 9)

    options = guest_options(tmp_path, report(), network=Network.USER)
    if how == "ends":
        record = boot(options, tmp_path / "run", on_event=look).record
        assert record.network == RecordedNetwork("passt", "")
        assert not [warning for warning in record.warnings if "loopback" in warning]
    else:
        with pytest.raises(ConsoleClosedError, match="killed from outside"):
            boot(options, tmp_path / "run", on_event=look)
    assert remarks[1:] == ["network: passt"]
    assert [word for word in seen["qemu"] if word.startswith("stream,id=net,")]
    ours = {child.name() for child in psutil.Process().children(recursive=True)}
    assert not [name for name in ours if name.startswith("passt")]


WHY_NOT = {
    "not installed": ("", "is not installed"),
    "does not start": (
        "echo 'Cannot open namespace' >&2; exit 1",
        "Cannot open namespace. Update passt or install it again",
    ),
    "never ready": ("exec sleep 60", "passt did not start"),
    "no program": ("\0", "passt did not start: Exec format error. Update passt"),
}


@pytest.mark.vm
@pytest.mark.parametrize(("script", "words"), WHY_NOT.values(), ids=WHY_NOT)
def test_without_passt_the_user_is_warned(script, words, tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(network, "_START_S", 0.5)
    folder = tmp_path / "bin"
    folder.mkdir()
    if script:
        (folder / "passt").write_text(f"#!/bin/sh\n{script}\n" if script > "\0" else script)
        (folder / "passt").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
    elif shutil.which("passt"):
        pytest.skip("passt is installed")
    warning = network_warning(host_arch())
    assert "services that listen on this host's loopback address" in warning
    assert words in warning
    remarks = []
    run = boot(
        guest_options(tmp_path, report(), network=Network.USER),
        tmp_path / "run",
        on_event=lambda event: remarks.extend([event.note] if event.is_remark else []),
    )
    assert f"warning: {warning}" in remarks
    assert run.record.network == RecordedNetwork("QEMU user networking", warning)
    assert warning in run.record.warnings


def test_an_old_qemu_has_no_socket_for_passt(tmp_path, monkeypatch):
    fake_qemu(tmp_path, monkeypatch, "printf 'Available netdev backend types:\\nuser\\n'")
    (tmp_path / "bin" / "passt").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "passt").chmod(0o755)
    assert "needs QEMU 7.2" in network_warning(host_arch())
