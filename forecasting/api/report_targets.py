"""`/v1/report-targets`: where reports may be delivered, by name alone."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from forecasting.api.parameters import query
from forecasting.api.reports import answer
from forecasting.api.service import CallerHere, ServiceHere
from forecasting.reports.schedules import is_for

router = APIRouter(tags=["report schedules"])


@router.get("/v1/report-targets", summary="Where reports may be delivered")
async def list_targets(
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    graph: Annotated[str | None, Query(description="Targets for reports of this graph alone.")] = None,
) -> Response:
    """Answer the targets for reports of the graphs that the caller may see, or of one of them: names and kinds.

    Where they lead and under which secrets is the operator's to know.
    """
    query(request, ("graph",))
    if graph is not None:
        graphs = [service.graph(caller, graph).name]
    else:
        graphs = [name for name in service.following.graphs if caller.sees(name)]
    targets = service.settings.reports.targets
    return answer(
        {
            "targets": [
                {"name": name, "kind": target.kind}
                for name, target in sorted(targets.items())
                if any(is_for(target, one) for one in graphs)
            ]
        }
    )
