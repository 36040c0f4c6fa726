"""Whether the service is well, and what it has counted."""

from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from melisma.web import metrics
from melisma.web.service import Service, service_of

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """What ``GET /healthz`` says."""

    status: Literal["ok"]
    version: str
    admitted: int
    streams: int


@router.get("/healthz")
async def healthz(service: Annotated[Service, Depends(service_of)]) -> Health:
    """Say that the service answers, and how much it has to do; no token is needed."""
    return Health(status="ok", version=version("melisma"), admitted=service.admitted, streams=service.streams)


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def prometheus(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Counters for Prometheus, in its text format."""
    return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)
