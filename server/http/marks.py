"""What an endpoint notes in a request's scope for the layers around it: whose request it is, and what to log."""

from __future__ import annotations

from typing import Final

# The route that the request was for, as the routing table has it; without it, the path.
ROUTE: Final = "supportbot.route"
# The name of the dialect that the client speaks.
DIALECT: Final = "supportbot.dialect"
# `server.http.errors.ErrorBody`: what an error looks like in this dialect.
ERROR_BODY: Final = "supportbot.error_body"
# A dictionary of more fields for the access log.
LOG: Final = "supportbot.log"
