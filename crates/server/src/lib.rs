//! The arrwdb binary: HTTP, configuration, command line, OpenAPI.
