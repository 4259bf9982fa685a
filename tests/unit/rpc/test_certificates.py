from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from kit.certificates import Authority
from pointsman_server.rpc import certificates as module
from pointsman_server.rpc.certificates import CertificateError, Certificates

AUTHORITY = Authority()
FIRST, SECOND = AUTHORITY.server(), AUTHORITY.server()


def files(folder: Path, *, mutual: bool = False) -> Certificates:
    return Certificates(*FIRST.write(folder, "server"), AUTHORITY.write(folder) if mutual else "")


def error(certificates: Certificates) -> str:
    with pytest.raises(CertificateError) as caught:
        certificates.check()
    return str(caught.value)


class TestFiles:
    @pytest.mark.parametrize("mutual", [False, True])
    def test_a_pair_is_fine(self, tmp_path: Path, mutual: bool) -> None:
        files(tmp_path, mutual=mutual).check()

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        certificates = files(tmp_path)
        os.remove(certificates.key_file)
        assert error(certificates) == f"{certificates.key_file} cannot be read: No such file or directory"

    def test_a_pair_that_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        certificates = files(tmp_path)
        Path(certificates.key_file).write_bytes(SECOND.key)
        said = error(certificates)
        assert "are not a certificate and its key" in said
        assert "PRIVATE" not in said

    def test_a_key_with_a_password_is_refused_without_asking_for_it(self, tmp_path: Path) -> None:
        certificates = files(tmp_path)
        key = serialization.load_pem_private_key(FIRST.key, None)
        locked = serialization.BestAvailableEncryption(b"secret")
        Path(certificates.key_file).write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        )
        assert "the key without a password" in error(certificates)

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe"])
    def test_no_certificates_are_no_authorities(self, tmp_path: Path, content: bytes) -> None:
        certificates = files(tmp_path, mutual=True)
        Path(certificates.client_ca_file).write_bytes(content)
        assert (
            error(certificates) == f"{certificates.client_ca_file} holds no certificate; name a PEM file of authorities"
        )

    def test_what_is_far_too_large_is_not_read(self, tmp_path: Path) -> None:
        certificates = files(tmp_path)
        Path(certificates.cert_file).write_bytes(b"x" * 1_000_001)
        assert "is larger than 1000000 bytes" in error(certificates)

    def test_files_that_change_meanwhile_are_not_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        certificates = files(tmp_path)
        check_pair = module._check_pair

        def replace_after(checked: Certificates) -> None:
            check_pair(checked)
            SECOND.write(tmp_path, "server")

        monkeypatch.setattr(module, "_check_pair", replace_after)
        assert error(certificates) == "the files changed while they were read"


class TestRenewal:
    def test_nothing_new(self, tmp_path: Path) -> None:
        renewal = module._Renewal(files(tmp_path))
        assert [renewal.renewed(), renewal.renewed()] == [None, None]

    @pytest.mark.parametrize("mutual", [False, True])
    def test_new_files_are_taken_once(self, tmp_path: Path, mutual: bool) -> None:
        renewal = module._Renewal(files(tmp_path, mutual=mutual))
        SECOND.write(tmp_path, "server")
        with capture_logs() as logs:
            assert renewal.renewed() is not None
            assert renewal.renewed() is None
        assert [line["event"] for line in logs] == ["certificates_renewed"]

    def test_a_link_to_another_folder_is_noticed(self, tmp_path: Path) -> None:
        for name, signed in (("one", FIRST), ("two", SECOND)):
            (tmp_path / name).mkdir()
            signed.write(tmp_path / name, "server")
        link = tmp_path / "now"
        link.symlink_to(tmp_path / "one")
        renewal = module._Renewal(Certificates(str(link / "server.pem"), str(link / "server.key")))
        assert renewal.renewed() is None
        link.unlink()
        link.symlink_to(tmp_path / "two")
        assert renewal.renewed() is not None

    def test_files_half_written_or_gone_leave_the_last_good_ones(self, tmp_path: Path) -> None:
        certificates = files(tmp_path)
        renewal = module._Renewal(certificates)
        with capture_logs() as logs:
            Path(certificates.cert_file).write_bytes(SECOND.certificate)
            assert [renewal.renewed() for _ in range(3)] == [None] * 3
            os.remove(certificates.key_file)
            assert [renewal.renewed() for _ in range(3)] == [None] * 3
            Path(certificates.key_file).write_bytes(SECOND.key)
            assert renewal.renewed() is not None
        events = [line["event"] for line in logs]
        assert events == ["certificates_not_renewed", "certificates_not_renewed", "certificates_renewed"]
        assert SECOND.key.decode() not in str(logs)
