"""Two applications of one host, `shop` and `blog`: what the roles make of their variables, as Ansible evaluates it without a host."""

import json
from pathlib import Path

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from real_nginx import of_roles, trusted

ROOT = Path(__file__).parents[1]
GROUPS = ("redis", "postgresql", "web", "workers", "beat", "flower", "edge")
SITES = {"shop": "www.shop.example", "blog": "www.blog.example"}
STATE = {"packages": [], "ssh_ports": [22], "others": {}, "record": {}, "current": ""}
OWN = {
    "shop": {"firewall_open_ports": [8025], "app_web": {"timeout": 120}, "nginx_hsts_seconds": 60},
    "blog": {
        "app_additional": True,
        "firewall_open_ports": [2525],
        "app_aliases": ["*.blog.example"],
        "nginx_locations": [{"path": "/a/", "limit": "1r/m"}],
        "nginx_websocket_paths": ["/ws/"],
        "nginx_client_max_body_size": "2m",
    },
}


def evaluate(app, text, **variables):
    """Evaluate a template with the variables of one of the two applications."""
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "playbooks"))
    places = [str(ROOT), *(str(role) for role in ROOT.glob("roles/*"))]
    facts = {"memtotal_mb": 8000, "swaptotal_mb": 0, "processor_vcpus": 2, "distribution_major_version": "13"}
    host = {"inventory_hostname": "one", "hostvars": {"one": {}}, "group_names": list(GROUPS), "ansible_facts": facts}
    host |= {"groups": {group: ["one"] for group in GROUPS}, "nginx_ipv6": {"stat": {"exists": True}}}
    host |= {
        "app_name": app,
        "app_url": f"https://{SITES[app]}",
        "celery_queues": {"default": {}},
        "app_celery": "a:b",
        "app_state": STATE,
    }
    host |= {"app_redis_passwords": dict.fromkeys(["web", "worker", "beat", "cache"], "x")}
    host |= {"app_secrets": {}, "ansible_managed": "by Ansible", "playbook_dir": f"{ROOT}/playbooks"}
    host |= {"role_path": f"{ROOT}/roles/app", "ansible_search_path": places, "app_project": str(ROOT)}
    values = of_roles("*") | host | trusted(OWN[app]) | variables
    return Templar(loader, variables=values).template(trust_as_template(text))


def rendered(app, name, **variables):
    """Render a file of a role or of systemd/."""
    return evaluate(app, f"{{{{ lookup('ansible.builtin.template', '{ROOT / name}') }}}}", **variables)


def record(app, **variables):
    """Return what a deploy notes of an application, as it is read from the host."""
    return json.loads(json.dumps(evaluate(app, "{{ app_record }}", **variables)))


def beside(*others):
    """Return what deploy_state says of a host with other applications."""
    return {"app_state": STATE | {"others": {name: {"deployed": "now", "record": record(name)} for name in others}}}
