import asyncio

from django.core.cache import cache
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path


def index(request):
    return HttpResponse("<title>Chat</title>")


def counts(request):
    return JsonResponse({"beats": cache.get("beats", 0), "swept": cache.get("swept", 0)})


async def events(request):
    async def stream():
        for number in range(600):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.5)

    return StreamingHttpResponse(stream(), content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


urlpatterns = [path("", index), path("counts/", counts), path("events/", events)]
