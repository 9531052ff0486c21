//! Concurrency limits. Each family of endpoints has its own, so that a flood of one kind takes no
//! capacity from another. A request above the limit is refused at once: waiting would only add to
//! the load.

use axum::{extract::Request, http::Method, middleware::Next, response::Response};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::http::{
    error::ErrorFormat,
    extract::body::{buffer_body, buffer_body_start},
    middleware::{metrics::Metrics, panic::run_catching_panics},
};

/// The largest number of requests in progress, by family of endpoints. A request counts from the
/// arrival of its body until its response is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// `POST /oauth2/token`.
    pub token: usize,
    /// `POST /oauth2/introspect`.
    pub introspection: usize,
    /// `POST /access/v1/evaluation` and `POST /access/v1/evaluations`.
    pub evaluation: usize,
    /// Revocations by clients and requesters: `POST /oauth2/revoke`, the ends of their tasks, and
    /// the withdrawal of their grants.
    pub revocation: usize,
    /// The other requests of agents, resources and requesters.
    pub self_service: usize,
    /// Requests of admins that revoke, suspend, block, withdraw, review or remove.
    pub admin_revocation: usize,
    /// The other requests of admins.
    pub administration: usize,
    /// Public documents: metadata, JWKS, status lists, the API description.
    pub documents: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            token: 512,
            introspection: 512,
            evaluation: 512,
            revocation: 128,
            self_service: 128,
            admin_revocation: 128,
            administration: 64,
            documents: 256,
        }
    }
}

/// A family of endpoints with a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum EndpointFamily {
    Token,
    Introspection,
    Evaluation,
    Revocation,
    SelfService,
    AdminRevocation,
    Administration,
    Documents,
}

impl EndpointFamily {
    /// Returns the name of the family in metrics and in `[limits]`.
    pub(in crate::http) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Introspection => "introspection",
            Self::Evaluation => "evaluation",
            Self::Revocation => "revocation",
            Self::SelfService => "self_service",
            Self::AdminRevocation => "admin_revocation",
            Self::Administration => "administration",
            Self::Documents => "documents",
        }
    }

    /// Returns the family of a route. Health probes, metrics and unknown paths have none: they cost
    /// little and are never refused. Neither has the revocation feed, whose subscribers have a
    /// limit.
    pub(in crate::http) fn of(method: &Method, route: &str) -> Option<Self> {
        let is_write = *method != Method::GET && *method != Method::HEAD;
        // To approve may be what a stop waits for.
        let ends_something = || {
            *method == Method::DELETE
                || [
                    "/revoke",
                    "/suspend",
                    "/complete",
                    "/fail",
                    "/resume",
                    "/review",
                    "/revocations",
                    "/refresh",
                    "/approvals",
                ]
                .iter()
                .any(|end| route.ends_with(end))
        };
        match route {
            "/oauth2/token" => Some(Self::Token),
            "/oauth2/introspect" => Some(Self::Introspection),
            "/access/v1/evaluation" | "/access/v1/evaluations" => Some(Self::Evaluation),
            "/oauth2/revoke" => Some(Self::Revocation),
            "/healthz" | "/readyz" | "/metrics" | "/revocations" | "none" => None,
            _ if route.starts_with("/v1/admin/") => {
                Some(if is_write && ends_something() { Self::AdminRevocation } else { Self::Administration })
            }
            _ if route.starts_with("/v1/") => {
                Some(if is_write && ends_something() { Self::Revocation } else { Self::SelfService })
            }
            _ => Some(Self::Documents),
        }
    }
}

/// The limits in force, and the requests in progress.
#[derive(Debug)]
pub(in crate::http) struct LoadShedder {
    token: Semaphore,
    introspection: Semaphore,
    evaluation: Semaphore,
    revocation: Semaphore,
    self_service: Semaphore,
    admin_revocation: Semaphore,
    administration: Semaphore,
    documents: Semaphore,
}

impl LoadShedder {
    pub(in crate::http) fn new(limits: RequestLimits) -> Self {
        let semaphore = |limit: usize| Semaphore::new(limit.min(Semaphore::MAX_PERMITS));
        Self {
            token: semaphore(limits.token),
            introspection: semaphore(limits.introspection),
            evaluation: semaphore(limits.evaluation),
            revocation: semaphore(limits.revocation),
            self_service: semaphore(limits.self_service),
            admin_revocation: semaphore(limits.admin_revocation),
            administration: semaphore(limits.administration),
            documents: semaphore(limits.documents),
        }
    }

    fn try_begin(&self, family: EndpointFamily) -> Option<SemaphorePermit<'_>> {
        let semaphore = match family {
            EndpointFamily::Token => &self.token,
            EndpointFamily::Introspection => &self.introspection,
            EndpointFamily::Evaluation => &self.evaluation,
            EndpointFamily::Revocation => &self.revocation,
            EndpointFamily::SelfService => &self.self_service,
            EndpointFamily::AdminRevocation => &self.admin_revocation,
            EndpointFamily::Administration => &self.administration,
            EndpointFamily::Documents => &self.documents,
        };
        semaphore.try_acquire().ok()
    }

    /// Reads the body and runs the handler, unless the family of the route has as many requests in
    /// progress as it may.
    pub(super) async fn run(
        &self,
        route: &str,
        format: ErrorFormat,
        metrics: &Metrics,
        request: Request,
        next: Next,
    ) -> Response {
        let family = EndpointFamily::of(request.method(), route);
        let request = match family {
            Some(EndpointFamily::Evaluation) => buffer_body_start(request).await,
            _ => buffer_body(request).await,
        };
        let permit = match family.map(|family| (family, self.try_begin(family))) {
            Some((family, None)) => {
                metrics.record_shed(family.as_str());
                return format.overloaded();
            }
            Some((_, permit)) => permit,
            None => None,
        };
        let response = run_catching_panics(format, request, next).await;
        drop(permit);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::routes;

    /// The family of each route. Public documents are the rest.
    #[test]
    fn every_route_has_its_family() {
        use EndpointFamily::*;
        let expected = |method: &str, path: &str| match (method, path) {
            ("POST", "/oauth2/token") => Some(Token),
            ("POST", "/oauth2/introspect") => Some(Introspection),
            ("POST", "/access/v1/evaluation" | "/access/v1/evaluations") => Some(Evaluation),
            (
                "POST",
                "/oauth2/revoke"
                | "/v1/tasks/{id}/revoke"
                | "/v1/tasks/{id}/suspend"
                | "/v1/tasks/{id}/resume"
                | "/v1/tasks/{id}/complete"
                | "/v1/tasks/{id}/fail",
            )
            | ("DELETE", "/v1/grants" | "/v1/grants/{id}") => Some(Revocation),
            (_, "/v1/tasks" | "/v1/tasks/{id}" | "/v1/tasks/{id}/calls" | "/v1/grants") => Some(SelfService),
            ("DELETE", _)
            | (
                "POST",
                "/v1/admin/revocations"
                | "/v1/admin/tasks/{id}/suspend"
                | "/v1/admin/tasks/{id}/resume"
                | "/v1/admin/tasks/{id}/complete"
                | "/v1/admin/tasks/{id}/fail"
                | "/v1/admin/keys/{kid}/revoke"
                | "/v1/admin/break-glass/{id}/review"
                | "/v1/admin/approvals"
                | "/v1/admin/issuers/{id}/keys/refresh",
            ) => Some(AdminRevocation),
            (_, path) if path.starts_with("/v1/admin/") => Some(Administration),
            (_, "/healthz" | "/readyz" | "/metrics" | "/revocations") => None,
            _ => Some(Documents),
        };
        for (method, path) in routes() {
            let family = EndpointFamily::of(&method.parse().unwrap(), path);
            assert_eq!(family, expected(method, path), "{method} {path}");
        }
        assert_eq!(EndpointFamily::of(&Method::GET, "none"), None);
        assert_eq!(EndpointFamily::of(&Method::GET, "/v1/admin/revocations"), Some(Administration));
    }

    #[test]
    fn full_family_leaves_others_alone() {
        let shedder = LoadShedder::new(RequestLimits { token: 2, ..RequestLimits::default() });
        let held = [(); 2].map(|()| shedder.try_begin(EndpointFamily::Token).unwrap());
        assert!(shedder.try_begin(EndpointFamily::Token).is_none());
        assert!(shedder.try_begin(EndpointFamily::AdminRevocation).is_some());
        drop(held);
        assert!(shedder.try_begin(EndpointFamily::Token).is_some());
    }
}
