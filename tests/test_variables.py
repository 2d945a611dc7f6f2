"""Each variable is described once, by its role; what the project sets itself is checked by it too."""

from pathlib import Path

import contract
import inventory
import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[1]
OPTIONS = inventory.specs(str(ROOT))
SCHEMAS = inventory.schemas(str(ROOT))
ROLES = sorted(path.parts[-3] for path in ROOT.glob("roles/*/meta/schema.yml"))
SET = sorted(path for path in ROOT.glob("inventories/*/group_vars/all/*.yml") if path.name != "vault.yml")


def load(path):
    return yaml.safe_load(path.read_text())


def parts(schema):
    """A schema and those of its parts."""
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    inner += [schema[key] for key in ("items", "propertyNames", "additionalProperties") if schema.get(key)]
    for each in inner:
        yield from parts(each)


@pytest.mark.parametrize("name", OPTIONS)
def test_schema_says_which_values_are_valid(name):
    """In words, because a pattern is not printed."""
    for part in parts(SCHEMAS[name]):
        if "integer" in part.get("type", "") and "enum" not in part:
            assert {"minimum", "maximum"} <= set(part), part
        elif part.get("type") == "string" or {"pattern", "minItems", "minProperties"} & set(part):
            assert {"title", "enum"} & set(part), part


@pytest.mark.parametrize("role", ROLES)
def test_schema_of_a_role_has_its_variables_alone(role):
    options = load(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    schema = load(ROOT / f"roles/{role}/meta/schema.yml")
    Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) <= set(options)
    for name, valid in schema["properties"].items():
        assert set(valid.get("properties", {})) <= set(options[name].get("options", {}))


def test_a_missing_variable_is_named_with_its_description():
    required = [name for name, option in OPTIONS.items() if option.get("required")]
    found = inventory.variable_problems({}, str(ROOT))
    assert [problem.split(" is missing: ")[0] for problem in found] == [*required, "app_wsgi"]
    assert "celery_queues is missing: Queue name to options. Each queue has a worker unit of its own." in found
    assert [problem for problem in found if "(" in problem] == []


def test_names_of_packages_are_checked_alike_in_every_role():
    names = [name for name in OPTIONS if name.endswith("_packages")]
    assert len(names) > 1 and all(SCHEMAS[name]["items"] == SCHEMAS[names[0]]["items"] for name in names)


@pytest.mark.parametrize("path", SET, ids=lambda path: str(path.relative_to(ROOT)))
def test_inventories_set_variables_that_exist_to_valid_values(path):
    """Those that are templates are known on a host only."""
    values = {name: value for name, value in load(path).items() if "{{" not in str(value)}
    found = inventory.variable_problems(dict.fromkeys(load(path), "") | values, str(ROOT))
    assert [problem for problem in found if problem.split()[0].split(".")[0].split("[")[0] in values] == []
    assert [problem for problem in found if "is no variable of the roles" in problem] == []


def test_sandbox_reads_every_secret_from_its_file():
    names = {name for name, option in OPTIONS.items() if option.get("no_log")} | {"app_database_login"}
    values = load(ROOT / "inventories/sandbox/group_vars/all/secrets.yml")
    assert set(values) - {"sandbox_secrets"} == names
    assert [name for name in names if f"sandbox_secrets.{name} " not in values[name]] == []


def test_longest_visibility_timeout_is_the_contracts():
    assert SCHEMAS["celery_visibility_timeout"]["maximum"] == contract.LONGEST_VISIBILITY


def test_an_option_that_is_left_out_has_its_default():
    email = inventory.with_defaults({"host": "mx.example.org"}, "app_email")
    assert email == {"host": "mx.example.org", "port": 0, "encryption": "starttls", "user": "", "sender": ""}
    assert inventory.with_defaults({"sandbox": ["user_namespaces"]}, "app_beat") == {
        "network": "",
        "sandbox": ["user_namespaces"],
        "writable": [],
    }


@pytest.mark.parametrize(
    "name, value, problem",
    [
        ("app_web", {"workers": 0}, "app_web.workers is 0; it must be a whole number from 1 to 512."),
        ("app_web", {"threads": "4"}, "app_web.threads is '4'; it must be a whole number from 1 to 1024, without quotes."),
        ("app_web", {"threads": "many"}, "app_web.threads is 'many'; it must be a whole number from 1 to 1024."),
        ("app_web", {"worker": 1}, "app_web.worker is unknown. Known options: drain, max_requests, network, preload, sandbox, threads, "
         "timeout, workers, writable."),
        ("app_version", 1.5, "app_version is 1.5; it must be a text, in quotes: a branch, a tag or a commit."),
        ("app_network", "open", "app_network is 'open'; it must be egress or sealed, or a list of IP addresses and networks, such as "
         '[203.0.113.0/24, "2001:db8::7"].'),
        ("app_network", ["203.0.113.7", "api.example.com"], "app_network[1] is 'api.example.com'; systemd resolves no names: write the "
         "addresses or networks that 'getent ahosts api.example.com' prints."),
        ("app_network", ["203.0.113.7/24"], "app_network[0] is '203.0.113.7/24'; write 203.0.113.0/24 for the network, or 203.0.113.7 for "
         "the address."),
        ("app_network", ["::/0"], "app_network[0] is '::/0'; that is every address: write egress in place of the list."),
        ("app_network", ["::ffff:192.0.2.1"], "app_network[0] is '::ffff:192.0.2.1'; write it as IPv4, such as 192.0.2.1."),
        ("app_web", {"network": ["10.1"]}, "app_web.network[0] is '10.1'; it must be an IP address or a network, such as 203.0.113.7 or "
         "203.0.113.0/24."),
        ("app_beat", {"network": ["https://a.example"]}, "app_beat.network[0] is 'https://a.example'; it must be an IP address or a "
         "network, such as 203.0.113.7 or 203.0.113.0/24."),
        ("celery_queues", {"hooks": {"network": ["localhost"]}}, "celery_queues.hooks.network[0] is 'localhost'; systemd resolves no "
         "names: write the addresses or networks that 'getent ahosts localhost' prints."),
        ("app_sandbox", ["jit"], "app_sandbox[0] is 'jit'; it must be writable_executable_memory, user_namespaces, machine_information, "
         "network_interfaces or process_priorities."),
        ("celery_queues", {"pdf": {"sandbox": ["jit"]}}, "celery_queues.pdf.sandbox[0] is 'jit'; it must be writable_executable_memory, "
         "user_namespaces, machine_information, network_interfaces or process_priorities."),
        ("app_writable", ["data", "media"], "app_writable[1] is 'media'; it must be a folder's name of at most 64 letters, digits and "
         "._+@-, not beginning with a dot or -, and not media."),
        ("nginx_x_frame_options", "deny", "nginx_x_frame_options is 'deny'; it must be empty, DENY or SAMEORIGIN."),
        ("nginx_acme", "yes", "nginx_acme is 'yes'; it must be true or false, without quotes."),
        ("firewall_open_ports", [80, 0], "firewall_open_ports[1] is 0; it must be a TCP port from 1 to 65535."),
        ("redis_packages", [], "redis_packages is []; it must be a list with the package that the role installs."),
        ("app_include", "x", "app_include is 'x'; it must be a list."),
        ("app_environment", {"A B": "1"}, "The name 'A B' in app_environment must be letters, digits and _, not beginning with a digit."),
        ("app_environment", {"A": [1]}, "app_environment.A is [1]; it must be a text or a number."),
        ("app_secrets", {"a": 5}, "app_secrets.a is of the type int; it must be a text that is not empty and contains no NUL."),
        ("app_own_settings", ["cache", "data base"], "app_own_settings[1] is 'data base'; it must be environment, database, cache, "
         "channels, secret_key, hosts, debug, security, static, media, email, logging, apps, tracing, celery or results."),
        ("app_environment", {"DJANGO_SETTINGS_MODULE": "a.b"},
         "app_environment.DJANGO_SETTINGS_MODULE is set by the units themselves: remove it."),
        ("app_log_redact", ["a", "(b"], "app_log_redact[1] is '(b', which is no regular expression of Python: missing ), unterminated "
         "subpattern at position 0."),
        ("app_log_redact", ["x*"], "app_log_redact[0] is 'x*', which matches an empty text: name at least one character."),
        ("app_email", {"port": 25}, "app_email has no host: name the SMTP server, or leave app_email out."),
        ("app_email", {"host": "mx.example.org", "encryption": "ssl"},
         "app_email.encryption is 'ssl'; it must be starttls, tls or none."),
        ("alerts_email", ["ops@example.com"], "alerts_email is ['ops@example.com'], and app_email names no SMTP server that could send to "
         "them: set app_email, or leave alerts_email out."),
        ("alerts_email", ["ops"], "alerts_email[0] is 'ops'; it must be an e-mail address, such as ops@example.com."),
        ("alerts_webhook_url", "http://hooks.example.com/kept", "alerts_webhook_url is of the type str; it must be empty or an https:// "
         "address without a login, or on the server itself http://localhost, http://127.0.0.1 or http://[::1]."),
        ("alerts_ping_url", "https://ann@example.com", "alerts_ping_url is of the type str; it must be empty or an https:// address "
         "without a login, or on the server itself http://localhost, http://127.0.0.1 or http://[::1]."),
        ("alerts_disk_free_percent", 0, "alerts_disk_free_percent is 0; it must be a whole number from 1 to 90."),
        ("app_secrets", {"PYTHONPATH": "/x"},
         "app_secrets.PYTHONPATH has the name of a variable that the units set themselves: choose another name."),
        ("app_secrets", {"PATH": "/x"},
         "app_secrets.PATH has the name of a variable that the programs of a process depend on: choose another name."),
        ("app_build", ["npm ci", "npm 'run build"], "app_build[1] is \"npm 'run build\"; it has a quotation mark that is not closed, ': "
         "close it, or put it in quotes of the other kind."),
        ("app_build", ["-x"], "app_build[0] is '-x'; it must be a command on one line, such as npm run build or python manage.py "
         "compilemessages."),
        ("app_hooks", {"after_migrate": ["-x"]}, "app_hooks.after_migrate[0] is '-x'; it must be a command on one line, such as manage.py "
         "clearsessions."),
        ("app_build", ["npm ci && npm run build"], "app_build[0] is 'npm ci && npm run build'; it has &&, which only a shell knows: write "
         "sh -c '...' around it, or make two commands of it. A word that is meant so goes in quotes."),
        ("app_build", ["cd front && npm ci"], "app_build[0] is 'cd front && npm ci'; it begins with cd, which only a shell knows: write "
         "env -C FOLDER before the program, for npm its option --prefix FOLDER, or write sh -c '...' around it."),
        ("app_build", ["NODE_ENV=production npm run build"], "app_build[0] is 'NODE_ENV=production npm run build'; it begins with the "
         "variable NODE_ENV: write env before it."),
        ("app_hooks", {"before_migrate": ["manage.py dumpdata >/tmp/x"]}, "app_hooks.before_migrate[0] is 'manage.py dumpdata >/tmp/x'; it "
         "has >, which only a shell knows: write sh -c '...' around it. A word that is meant so goes in quotes."),
        ("app_services", {"bot": {"command": "run a | logger"}}, "app_services.bot.command is 'run a | logger'; it has |, which only a "
         "shell knows: write sh -c '...' around it. A word that is meant so goes in quotes."),
        ("app_timers", {"a": {"command": "x 'y", "calendar": "daily"}}, "app_timers.a.command is \"x 'y\"; it has a quotation mark that "
         "is not closed, ': close it, or put it in quotes of the other kind."),
        ("app_services", {"bot": {"command": "a \\; b"}}, "app_services.bot.command is 'a \\\\; b'; it has a backslash outside of single "
         "quotes: put that word in single quotes."),
        ("app_flower_password", 12, "app_flower_password is of the type int; it must be a text of random characters."),
        ("celery_queues", {"default": {"concurrency": 0}},
         "celery_queues.default.concurrency is 0; it must be a whole number from 1 to 1000, or auto, or auto*1 to auto*100."),
    ],
)  # fmt: skip
def test_a_problem_names_the_variable_the_value_and_what_is_valid(name, value, problem):
    found = inventory.variable_problems({name: value}, str(ROOT))
    assert [each for each in found if " is missing: " not in each] == [problem]


@pytest.mark.parametrize(
    "command",
    [
        "a && b", "a || b", "a | b", "a |& b", "a ; b", "a; b", "a &", "a & b", "a > b", "a >b", "a >> b", "a 2>b", "a 2> b", "a 2>&1",
        "a >/dev/null", "a &>b", "a < b", "a <b", "a << b", "a <<< b", "a >'b c'", "a 'b' && c", "cd a", "cd a && b", "A=1 b", "A='b c' d",
    ],
)  # fmt: skip
def test_what_only_a_shell_would_do_is_refused(command):
    assert inventory.command_problem(command), command


@pytest.mark.parametrize(
    "command",
    [
        "a '&&' b", "sh -c 'a && b >c'", 'sh -c "cd a; b | c"', "a b&c", "a x;y", "a 'x;'", "a 'b > c'", "a --x=>b", "a >=1.0",
        "pip install 'x>=1'", "a $HOME *.css", "a https://b/?c=1&d=2", "a b=c", "env A=1 b", "a x->y", "a '\\n'", 'a "it\'s"', "./a b",
        "../a", "_a", "/usr/bin/a -c",
    ],
)  # fmt: skip
def test_other_commands_are_right(command):
    assert inventory.command_problem(command) == ""


def test_variable_that_is_a_secret_too_is_refused():
    given = {
        "app_environment": {"STRIPE_KEY": "x", "api_key": "y"},
        "app_secrets": {"STRIPE_KEY": "hidden", "api_key": "hidden"},  # pragma: allowlist secret
    }
    found = [each for each in inventory.variable_problems(given, str(ROOT)) if " is missing: " not in each]
    assert found == [
        "app_environment.STRIPE_KEY and app_secrets.STRIPE_KEY are both set, and the application would see the first alone: remove one of them."
    ], "a secret with another name is a file only"
