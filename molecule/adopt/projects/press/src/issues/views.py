import json

from celery import chord
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from .models import Issue, Visits
from .tasks import bind, render_page


def health(request):
    return HttpResponse("ok" if Issue.objects.count() >= 0 else "")


@csrf_exempt
@require_POST
def create(request):
    data = json.loads(request.body)
    issue = Issue.objects.create(title=data["title"], pages=data.get("pages", 3))
    chord(render_page.s(issue.title, page) for page in range(1, issue.pages + 1))(bind.s(issue.pk))
    return JsonResponse({"id": issue.pk}, status=201)


def show(request, pk):
    issue = get_object_or_404(Issue, pk=pk)
    counted = sum(Visits.objects.values_list("counted", flat=True))
    return JsonResponse({"title": issue.title, "bound": issue.bound.splitlines(), "counted": counted})
