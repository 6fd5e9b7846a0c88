"""Real OpenPGP keys and signatures, made by GnuPG in a home of its own."""

import os
import subprocess

from cloudlab.image.catalogue import Key


class Gpg:
    """A GnuPG home of its own."""

    def __init__(self, home):
        self.home = home
        home.mkdir(mode=0o700)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=True)

    def __call__(self, *words, data=b""):
        quiet = [
            "gpg",
            "--batch",
            "--quiet",
            "--no-tty",
            "--pinentry-mode=loopback",
            "--passphrase=",
        ]
        env = {**os.environ, "GNUPGHOME": str(self.home)}
        done = subprocess.run(
            [*quiet, *words], input=data, env=env, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def key(self, name, *options, expiry="never"):
        self(*options, "--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", expiry)
        colons = self("--with-colons", "--fingerprint", f"{name}@example.org").decode()
        fingerprint = next(
            line.split(":")[9] for line in colons.splitlines() if line.startswith("fpr:")
        )
        file = self.home / f"{name}.gpg"
        file.write_bytes(self("--export", f"{name}@example.org"))
        return Key(name, file, fingerprint)

    def sign(self, key, how, data, *options):
        return self(*options, "--local-user", key.fingerprint, how, data=data)
