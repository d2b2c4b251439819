//! Who is asking.

use std::convert::Infallible;

use arrwdb_engine::state::TenantId;
use axum::extract::FromRequestParts;
use http::request::Parts;

/// Whoever sent a request. Every handler takes one, and the tenant in it goes into every call of
/// the engine. Until keys are configured there is one tenant, and everybody acts as its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    /// The tenant whose data is seen and changed.
    pub tenant: TenantId,
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self { tenant: TenantId::DEFAULT })
    }
}
