"""manage.py by hand: with the caller's variables, input and exit status."""

import pytest

pytestmark = pytest.mark.group("web", "workers", "beat")
VALUE = "a \"b\" $HOME 'c' \\d"


def test_variables_of_django_reach_manage_py_and_nobody_else(shell, deployment):
    code = "import os, subprocess; print(os.environ['DJANGO_X'], os.environ['MINE'], 'OTHER' in os.environ)"
    script = (
        f"export DJANGO_X='{VALUE.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}' MINE=mine OTHER=other\n"
        f'MANAGE_ENVIRONMENT=MINE {deployment.app_name}-manage shell --no-imports --command "{code}"\n'
        f"ls /run | grep -c {deployment.app_name}-manage\n"
    )
    assert shell(script).splitlines() == [f"{VALUE} mine False", "0"]


@pytest.mark.parametrize(
    "word", ["$HOME", "${HOME}", "a $HOME ${PATH} $$ $", "%n %%", "*", " b  'c' \"d\" \\", "e\nf\n"]
)
def test_words_reach_manage_py_as_they_are(host, deployment, word):
    """No command has such a name, and Django says which name it was given."""
    result = host.run(f"{deployment.app_name}-manage %s", word)
    assert result.rc != 0 and f"Unknown command: {word!r}" in result.stderr


def test_input_and_exit_status_are_kept(shell, deployment):
    manage = f"{deployment.app_name}-manage"
    said = shell(
        f"echo hello | {manage} --module base64 -e -; {manage} shell --no-imports --command 'raise SystemExit(7)'; echo $?"
    )
    assert said.split() == ["aGVsbG8K", "7"]
