"""FastAPI and Pydantic: routes and what they depend on, schemas, handlers of errors."""
