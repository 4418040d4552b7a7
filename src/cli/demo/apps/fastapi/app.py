"""A small API: the interest of a sum over the years. Its documentation is at `docs`."""

from fastapi import FastAPI, Query

app = FastAPI(title="Interest", description="A small API that Bowline runs.")


@app.get("/")
def about() -> dict[str, str]:
    """Where to go from here."""
    return {"interest": "interest?sum=1000&rate=0.02&years=10", "documentation": "openapi.json"}


@app.get("/interest")
def interest(
    amount: float = Query(1000, alias="sum"), rate: float = Query(0.02, ge=0, le=1), years: int = Query(10, ge=0, le=100)
) -> list[float]:
    """What a sum becomes, year by year."""
    return [round(amount * (1 + rate) ** year, 2) for year in range(years + 1)]
