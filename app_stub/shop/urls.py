"""Every path of the site."""

from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

from shop import health

urlpatterns = [
    path("healthz/", health.healthz),
    path("readyz/", health.readyz),
    path("admin/", admin.site.urls),
    path("", include("orders.urls")),
]


def handler400(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Django's own reads the form once more, and fails at one that cannot be read: 500."""
    return JsonResponse({"errors": {"__all__": ["Bad request."]}}, status=400)


def handler404(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Answer in JSON, for the clients of an API read no HTML."""
    return JsonResponse({"errors": {"__all__": ["Not found."]}}, status=404)
