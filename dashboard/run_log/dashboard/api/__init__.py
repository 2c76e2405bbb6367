"""The HTTP API: what the library answers, in the same JSON, shaped as Google's AIPs say."""

from fastapi import APIRouter
from fastapi.routing import APIRoute

from . import answers, routes, watch
from .document import describe

__all__ = ["describe", "router"]


def _name(route: APIRoute) -> str:
    return route.name


router = APIRouter(generate_unique_id_function=_name)
for _part in (routes, answers, watch):
    router.include_router(_part.router)
