"""Signs in before each case as the administrator of CHECK_ADMINISTRATOR, if it is set. A case may end sessions, or delete
the administrator when there is another one by then: the next one is made at the command line."""

import itertools
import os
import subprocess

import requests
import schemathesis

BASE = os.environ["CHECK_BASE"]
EMAIL = os.environ.get("CHECK_ADMINISTRATOR")
PASSWORD = "correct horse battery"

if EMAIL:
    emails = itertools.chain([EMAIL], (f"{n}.{EMAIL}" for n in itertools.count(1)))

    @schemathesis.auth(refresh_interval=None)
    class Administrator:
        email = None

        def get(self, case, context):
            for _ in range(3):
                body = {"email": self.email, "password": PASSWORD}
                if self.email:
                    answer = requests.post(f"{BASE}/v1/users/login", json=body, timeout=30)
                    if answer.status_code == 200:
                        return answer.json()["access_token"]
                self.email = next(emails)
                program = [os.environ["CHECK_PROGRAM"], "users", "create", self.email]
                subprocess.run(
                    [*program, "--role", "admin", "--password-stdin"],
                    input=PASSWORD.encode(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            raise RuntimeError("the administrator cannot sign in")

        def set(self, case, data, context):
            case.headers["Authorization"] = f"Bearer {data}"
