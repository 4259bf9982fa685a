"""What the package offers, and what it takes to import it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pointsman_client
import pointsman_client.testing

EXPORTS = """
    Answer AnswerInvalid AnswerStream AsyncAnswerStream AsyncClient BudgetExceeded CallOptions Cancelled Client
    ClientOptions CompletionOptions ContractViolation DeadlineExceeded Decision DecisionExpired DeploymentNotFound
    EmbedOptions Embeddings FieldViolation InternalError InvalidRequest NoEligibleDeployment PermissionDenied
    PointsmanError PreconditionViolation Prompt QuotaViolation RateLimited RequestIdReused RequestNotFound
    RetryPolicy RouteOptions StreamEvent StreamInterrupted StreamOptions Unauthenticated Unavailable assistant
    call_tool document
    error_from_rpc function_tool image_from_bytes image_from_path stream_response system template
    tls_from_files tool_call tool_result user
"""

ALLOWED = ("pointsman", "pointsman_client", "google", "grpc", "grpc_status", "typing_extensions")


def test_the_golden_list() -> None:
    assert pointsman_client.__all__ == EXPORTS.split()
    assert pointsman_client.testing.__all__ == ["FakeAsyncClient", "FakeClient", "InMemoryRouter", "RecordedCall"]
    for module in (pointsman_client, pointsman_client.testing):
        assert all(hasattr(module, name) for name in module.__all__)


def test_both_forms_have_the_same_surface() -> None:
    def surface(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    client = pointsman_client.Client("localhost:1")
    stubs = {"router", "embedding", "feedback", "admin"}
    assert all(hasattr(client, name) for name in stubs)
    client.close()
    assert surface(pointsman_client.Client) | stubs == surface(pointsman_client.AsyncClient)
    assert surface(pointsman_client.AnswerStream) == surface(pointsman_client.AsyncAnswerStream)


def test_it_is_typed() -> None:
    assert (Path(pointsman_client.__file__).parent / "py.typed").exists()


def test_it_imports_nothing_but_its_own_dependencies() -> None:
    """A fresh interpreter that refuses every other package: no server, no SDK, no test tool."""
    program = f"""
import sys
from importlib.abc import MetaPathFinder
allowed = set({ALLOWED!r}) | set(sys.stdlib_module_names) | {{"sitecustomize", "usercustomize"}}
class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{{name}} is no dependency of pointsman-client")
sys.meta_path.insert(0, Refuse())
import pointsman_client.testing
client = pointsman_client.testing.FakeClient()
client.in_memory.answer("ok")
print(client.complete("x").text)
"""
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("ok\n", "")
