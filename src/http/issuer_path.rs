//! An issuer with a path, such as `https://example.com/sts`. Its endpoints are below the path, and
//! its metadata has the path at the end (RFC 8414 §3.1). A proxy may remove the path: both forms
//! are served.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{Uri, uri::PathAndQuery},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use url::Url;

use crate::domain::uri::IssuerUrl;

/// The metadata documents: RFC 8414 §3.1, and AuthZEN Authorization API 1.0 §9.2.
const METADATA: [&str; 2] = ["/.well-known/oauth-authorization-server", "/.well-known/authzen-configuration"];

/// Serves the router below the path of the issuer, in addition to the root. Returns it unchanged if
/// the issuer has no path.
pub(super) fn serve_below_issuer(router: Router, issuer: &IssuerUrl) -> Router {
    let path = Url::parse(issuer.as_str()).map(|url| url.path().trim_end_matches('/').to_owned()).unwrap_or_default();
    if path.is_empty() {
        return router;
    }
    // A layer runs after the routing of its own router, so the router is the fallback of another.
    Router::new().fallback_service(router).layer(from_fn_with_state(Arc::<str>::from(path), remove_issuer_path))
}

async fn remove_issuer_path(State(issuer_path): State<Arc<str>>, mut request: Request, next: Next) -> Response {
    if let Some(uri) = local_uri(request.uri(), &issuer_path) {
        *request.uri_mut() = uri;
    }
    next.run(request).await
}

/// Returns the URI without the path of the issuer, if it has that path.
fn local_uri(uri: &Uri, issuer_path: &str) -> Option<Uri> {
    let path = local_path(uri.path(), issuer_path)?;
    let path = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

fn local_path<'a>(path: &'a str, issuer_path: &str) -> Option<&'a str> {
    let is_of_issuer = |document: &&str| path.strip_prefix(*document).is_some_and(|rest| rest == issuer_path);
    if let Some(document) = METADATA.into_iter().find(is_of_issuer) {
        return Some(document);
    }
    path.strip_prefix(issuer_path).filter(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_path_is_removed() {
        for (path, expected) in [
            ("/sts/oauth2/token", Some("/oauth2/token")),
            ("/sts/v1/tasks?limit=1", Some("/v1/tasks?limit=1")),
            ("/sts/", Some("/")),
            ("/.well-known/oauth-authorization-server/sts", Some(METADATA[0])),
            ("/sts/.well-known/oauth-authorization-server", Some(METADATA[0])),
            ("/.well-known/authzen-configuration/sts", Some(METADATA[1])),
            ("/sts/.well-known/authzen-configuration", Some(METADATA[1])),
            ("/.well-known/authzen-configuration", None),
            ("/sts/access/v1/evaluation", Some("/access/v1/evaluation")),
            ("/.well-known/oauth-authorization-server", None),
            ("/.well-known/oauth-authorization-server/other", None),
            ("/.well-known/oauth-authorization-server/sts/more", None),
            ("/oauth2/token", None),
            ("/sts", None),
            ("/stsx/oauth2/token", None),
            ("/x/sts/oauth2/token", None),
        ] {
            let found = local_uri(&path.parse().unwrap(), "/sts");
            assert_eq!(found.map(|uri| uri.to_string()).as_deref(), expected, "{path}");
        }
    }
}
