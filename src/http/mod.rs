//! The edge: syntax and status codes. A handler is an extractor that is the permission, one call, an answer.

mod accept;
mod admin;
mod body;
mod break_glass;
mod catalogue;
mod client_auth;
mod error;
mod exchange_form;
mod feed;
mod form;
mod grants;
mod guard;
mod listen;
mod metadata;
mod metrics;
mod oauth;
mod observe;
mod operations;
mod path;
mod preface;
mod problem;
mod query;
mod replicas;
mod revocations;
mod status_lists;
mod tasks;
mod views;

use std::{sync::Arc, time::Duration};

use axum::{
    Router, middleware,
    routing::{delete, get, post},
};

pub use form::Form;
pub use listen::{Listener, Tls, TlsFault, serve};
pub use metrics::Metrics;

use crate::{
    app::Service,
    domain::{registry::Kind, task::Act},
};

/// What handlers share.
#[derive(Clone, Debug)]
pub struct App {
    /// Errand itself.
    pub service: Service,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
}

impl App {
    /// Puts a service behind the edge.
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service, metrics: Arc::default() }
    }
}

/// How long a request may take, and where operations are served.
#[derive(Clone, Copy, Debug)]
pub struct EdgeSettings {
    /// After this the answer is 503.
    pub request_timeout: Duration,
    /// Whether `/healthz`, `/readyz` and `/metrics` are on the public listener too; not, where they have their own.
    pub operations_here: bool,
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(10), operations_here: true }
    }
}

/// Every route that the public listener has.
pub fn router(app: App, settings: EdgeSettings) -> Router {
    let operations = if settings.operations_here { operations() } else { Router::new() };
    let routes = oauth().merge(api()).merge(documents()).merge(operations);
    wrap(routes, app, settings)
}

/// The routes of the operations listener, where there is one.
pub fn operations_router(app: App, settings: EdgeSettings) -> Router {
    wrap(operations(), app, settings)
}

fn wrap(routes: Router<App>, app: App, settings: EdgeSettings) -> Router {
    routes
        .method_not_allowed_fallback(guard::method_not_allowed)
        .fallback(guard::not_found)
        // One layer: each is a few allocations for each request.
        .layer(middleware::from_fn_with_state((app.clone(), settings.request_timeout), observe::observe))
        .with_state(app)
}

fn oauth() -> Router<App> {
    Router::new()
        .route("/oauth2/token", post(oauth::token))
        .route("/oauth2/introspect", post(oauth::introspect))
        .route("/oauth2/revoke", post(oauth::revoke))
        .route("/oauth2/authorize", get(metadata::authorize))
        .route("/oauth2/jwks", get(metadata::jwks))
        .route("/.well-known/oauth-authorization-server", get(metadata::metadata))
}

fn api() -> Router<App> {
    Router::new()
        .merge(admin::objects("/v1/admin/agents", Kind::Agent))
        .merge(admin::objects("/v1/admin/resources", Kind::Resource))
        .merge(admin::objects("/v1/admin/issuers", Kind::Issuer))
        .merge(admin::objects("/v1/admin/admins", Kind::Admin))
        .route("/v1/admin/resources/{id}/catalogue", get(catalogue::read))
        .route("/v1/admin/resources/{id}/catalogue/import", post(catalogue::import))
        .route("/v1/admin/resources/{id}/catalogue/accept", post(catalogue::accept))
        .route("/v1/admin/clients/{id}/secret", post(admin::make_secret))
        .route("/v1/admin/grants", get(grants::list).post(grants::put).delete(grants::withdraw_all))
        .route("/v1/admin/grants/{id}", delete(grants::withdraw))
        .route("/v1/admin/break-glass", get(break_glass::list).post(break_glass::make))
        .route("/v1/admin/break-glass/{id}", get(break_glass::read))
        .route("/v1/admin/break-glass/{id}/review", post(break_glass::review))
        .route("/v1/grants", get(grants::list_own).post(grants::put_own))
        .route("/v1/grants/{id}", delete(grants::withdraw_own))
        .route("/v1/admin/keys", get(admin::list_keys))
        .route("/v1/admin/keys/rotate", post(admin::rotate_keys))
        .route("/v1/admin/keys/{kid}/revoke", post(admin::revoke_key))
        .route("/v1/admin/tokens", get(admin::list_tokens))
        .route("/v1/admin/tokens/{id}", get(admin::read_token))
        .route("/v1/admin/tasks", get(tasks::list))
        .route("/v1/admin/tasks/{id}", get(tasks::read))
        .route("/v1/admin/tasks/{id}/suspend", post(tasks::by_admin(Act::Suspend)))
        .route("/v1/admin/tasks/{id}/resume", post(tasks::by_admin(Act::Resume)))
        .route("/v1/admin/tasks/{id}/complete", post(tasks::by_admin(Act::Complete)))
        .route("/v1/admin/tasks/{id}/fail", post(tasks::by_admin(Act::Fail)))
        .route("/v1/admin/tasks/{id}/trail", get(tasks::trail))
        .route("/v1/tasks/{id}/calls", post(tasks::report_call))
        .route("/v1/tasks", get(tasks::list_own))
        .route("/v1/tasks/{id}", get(tasks::read_own))
        .route("/v1/tasks/{id}/revoke", post(tasks::revoke_own))
        .route("/v1/tasks/{id}/suspend", post(tasks::by_party(Act::Suspend)))
        .route("/v1/tasks/{id}/resume", post(tasks::by_party(Act::Resume)))
        .route("/v1/tasks/{id}/complete", post(tasks::by_party(Act::Complete)))
        .route("/v1/tasks/{id}/fail", post(tasks::by_party(Act::Fail)))
        .route("/v1/admin/revocations", get(revocations::list).post(revocations::revoke))
        .route("/v1/admin/shut-out", get(revocations::list_shut_out))
        .route("/v1/admin/replicas", get(replicas::list))
        .route("/v1/admin/audit", get(admin::list_audit))
        .route("/revocations", get(feed::follow))
        .route("/status-lists", get(status_lists::all))
        .route("/status-lists/{id}", get(status_lists::one))
}

fn documents() -> Router<App> {
    Router::new()
        .route("/openapi.yaml", get(operations::openapi_yaml))
        .route("/openapi.json", get(operations::openapi_json))
        .route("/docs", get(operations::docs))
        .route("/docs/{file}", get(operations::docs_file))
}

fn operations() -> Router<App> {
    Router::new()
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics))
}
