from datetime import timedelta

broker_url = "redis://redis:6379/0"
result_backend = "redis://redis:6379/1"
result_expires = timedelta(days=2)
task_routes = {"issues.tasks.render_page": "render"}
task_soft_time_limit = 240
worker_prefetch_multiplier = 4
beat_schedule = {
    "count": {"task": "issues.tasks.count_visits", "schedule": 5.0},
}
