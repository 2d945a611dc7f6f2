import asyncio
from pathlib import Path

from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from .tasks import seal


def index(request):
    return HttpResponse("<title>Chat</title>")


def counts(request):
    return JsonResponse({name: cache.get(name, 0) for name in ("beats", "swept", "scheduled", "rung")})


def keep(request):
    kept = Path(settings.MEDIA_ROOT, "kept.txt")
    kept.unlink(missing_ok=True)
    kept.write_text(request.GET["text"])
    kept.chmod(0o600)
    seal.delay(str(kept))
    return HttpResponse(status=202)


def sealed(request):
    return JsonResponse({"text": cache.get("sealed")})


async def events(request):
    async def stream():
        for number in range(600):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.5)

    return StreamingHttpResponse(stream(), content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


urlpatterns = [path("", index), path("counts/", counts), path("events/", events), path("keep/", keep), path("sealed/", sealed)]
