"""What redis-cli is given to read."""

import re
import string

from hypothesis import example, given
from hypothesis import strategies as st
from redis_acl import redis_acl_commands, redis_login

PRINTABLE = [character for character in map(chr, range(33, 127))]


def split(line):
    """Split a line into words as redis-cli does: within double quotes a backslash makes the next character plain."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"(?=\s|$)|([^\s"]\S*)', line)
    return [re.sub(r"\\(.)", r"\1", quoted) or plain for quoted, plain in words]


@given(st.text(PRINTABLE, min_size=16))
@example("Zx9\"kQ'v7-Lm2pRt8w")
@example('-"\\\\"x9$(id)`%n#;;\\')
@example(string.punctuation)
def test_any_password_that_the_checks_accept_is_read_as_it_is(password):
    login = redis_login({"admin": password})
    assert login.endswith("\n") and split(login.rstrip("\n")) == ["AUTH", "admin", password]


def test_who_is_gone_from_the_access_list_is_deleted():
    before = "user default off\nuser exporter on #00 +ping\nuser web on #00 +ping\n"
    said = redis_acl_commands("user default off\nuser web on #00 +get\n", {"admin": "a"}, before)
    assert said.splitlines()[1:] == [
        "ACL SETUSER default reset off",
        "ACL SETUSER web reset on #00 +get",
        "ACL DELUSER exporter",
    ]


def test_access_list_becomes_commands_after_the_login():
    said = redis_acl_commands("# managed\nuser web on #00 ~a +ping\nuser default off\n", {"admin": 'a"b', "web": "x"})
    assert said.splitlines() == [
        r'AUTH admin "a\"b"',
        "ACL SETUSER web reset on #00 ~a +ping",
        "ACL SETUSER default reset off",
    ]
