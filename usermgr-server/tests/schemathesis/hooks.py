"""Signs in as the administrator of CHECK_ADMINISTRATOR, if it is set. A case may end the session, or delete the
administrator when there is another one by then: whoever is refused signs in anew, and the next administrator is made at the
command line."""

import itertools
import os
import subprocess

import requests
import schemathesis

EMAIL = os.environ.get("CHECK_ADMINISTRATOR")
PASSWORD = "correct horse battery"

if EMAIL:
    emails = itertools.chain([EMAIL], (f"{n}.{EMAIL}" for n in itertools.count(1)))

    @schemathesis.auth(refresh_interval=None)
    class Administrator:
        email = None
        token = None

        def get(self, case, context):
            if Administrator.token is None:
                Administrator.token = self.sign_in()
            return Administrator.token

        def set(self, case, data, context):
            case.headers["Authorization"] = f"Bearer {data}"

        def sign_in(self):
            for _ in range(3):
                if self.email:
                    body = {"email": self.email, "password": PASSWORD}
                    answer = requests.post(f"{os.environ['CHECK_BASE']}/v1/users/login", json=body, timeout=30)
                    if answer.status_code == 200:
                        return answer.json()["access_token"]
                self.email = next(emails)
                program = [os.environ["CHECK_PROGRAM"], "users", "create", self.email]
                subprocess.run(
                    [*program, "--role", "admin", "--password-stdin"],
                    input=PASSWORD.encode(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            raise RuntimeError("the administrator cannot sign in")

    @schemathesis.hook
    def after_call(context, case, response):
        if response.status_code == 401:
            Administrator.token = None


# Joiners and variation selectors are taken in names where they do something, and refused elsewhere. A pattern cannot say so.
SOMETIMES_TAKEN = [(0x180B, 0x180F), (0x200C, 0x200D), (0xFE00, 0xFE0F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)]


@schemathesis.hook
def filter_body(context, body):
    name = body.get("username") if isinstance(body, dict) else None
    return not isinstance(name, str) or not any(a <= ord(c) <= b for c in name for a, b in SOMETIMES_TAKEN)
