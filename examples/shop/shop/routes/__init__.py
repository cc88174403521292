"""The shop's routes, one module a resource."""

from shop.routes import (
    catalogue,
    customers,
    dashboard,
    events,
    exports,
    health,
    imports,
    orders,
    payments,
    reports,
    reviews,
)

routers = (
    health.router,
    customers.router,
    catalogue.router,
    reviews.router,
    orders.router,
    payments.router,
    imports.router,
    exports.router,
    dashboard.router,
    reports.router,
    events.router,
)
