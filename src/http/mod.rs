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
pub use listen::{Listener, Tls, TlsError, serve};
pub use metrics::Metrics;

use crate::{
    app::Service,
    domain::{registry::ObjectKind, task::TaskAction},
};

/// What handlers share.
#[derive(Clone, Debug)]
pub struct AppState {
    /// Errand itself.
    pub service: Service,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
}

impl AppState {
    /// Puts a service behind the edge.
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service, metrics: Arc::default() }
    }
}

/// How long a request may take, and where operations are served.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// After this the answer is 503.
    pub request_timeout: Duration,
    /// Whether `/healthz`, `/readyz` and `/metrics` are on the public listener too; not, where they have their own.
    pub serves_operations: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(10), serves_operations: true }
    }
}

/// Every route that the public listener has.
pub fn router(app: AppState, settings: HttpSettings) -> Router {
    let operations = if settings.serves_operations { operations_routes() } else { Router::new() };
    let routes = oauth_routes().merge(api_routes()).merge(document_routes()).merge(operations);
    with_middleware(routes, app, settings)
}

/// The routes of the operations listener, where there is one.
pub fn operations_router(app: AppState, settings: HttpSettings) -> Router {
    with_middleware(operations_routes(), app, settings)
}

fn with_middleware(routes: Router<AppState>, app: AppState, settings: HttpSettings) -> Router {
    routes
        .method_not_allowed_fallback(guard::method_not_allowed)
        .fallback(guard::not_found)
        // One layer: each is a few allocations for each request.
        .layer(middleware::from_fn_with_state((app.clone(), settings.request_timeout), observe::log_request))
        .with_state(app)
}

fn oauth_routes() -> Router<AppState> {
    Router::new()
        .route("/oauth2/token", post(oauth::token))
        .route("/oauth2/introspect", post(oauth::introspect))
        .route("/oauth2/revoke", post(oauth::revoke))
        .route("/oauth2/authorize", get(metadata::authorize))
        .route("/oauth2/jwks", get(metadata::jwks))
        .route("/.well-known/oauth-authorization-server", get(metadata::metadata))
}

fn api_routes() -> Router<AppState> {
    Router::new()
        .merge(admin::object_routes("/v1/admin/agents", ObjectKind::Agent))
        .merge(admin::object_routes("/v1/admin/resources", ObjectKind::Resource))
        .merge(admin::object_routes("/v1/admin/issuers", ObjectKind::Issuer))
        .merge(admin::object_routes("/v1/admin/admins", ObjectKind::Admin))
        .route("/v1/admin/resources/{id}/catalogue", get(catalogue::read))
        .route("/v1/admin/resources/{id}/catalogue/import", post(catalogue::import))
        .route("/v1/admin/resources/{id}/catalogue/accept", post(catalogue::accept))
        .route("/v1/admin/clients/{id}/secret", post(admin::create_secret))
        .route("/v1/admin/grants", get(grants::list).post(grants::create).delete(grants::withdraw_all))
        .route("/v1/admin/grants/{id}", delete(grants::withdraw))
        .route("/v1/admin/break-glass", get(break_glass::list).post(break_glass::create))
        .route("/v1/admin/break-glass/{id}", get(break_glass::read))
        .route("/v1/admin/break-glass/{id}/review", post(break_glass::review))
        .route("/v1/grants", get(grants::list_own).post(grants::create_own))
        .route("/v1/grants/{id}", delete(grants::withdraw_own))
        .route("/v1/admin/keys", get(admin::list_keys))
        .route("/v1/admin/keys/rotate", post(admin::rotate_keys))
        .route("/v1/admin/keys/{kid}/revoke", post(admin::revoke_key))
        .route("/v1/admin/tokens", get(admin::list_tokens))
        .route("/v1/admin/tokens/{id}", get(admin::read_token))
        .route("/v1/admin/tasks", get(tasks::list))
        .route("/v1/admin/tasks/{id}", get(tasks::read))
        .route("/v1/admin/tasks/{id}/suspend", post(tasks::admin_transition(TaskAction::Suspend)))
        .route("/v1/admin/tasks/{id}/resume", post(tasks::admin_transition(TaskAction::Resume)))
        .route("/v1/admin/tasks/{id}/complete", post(tasks::admin_transition(TaskAction::Complete)))
        .route("/v1/admin/tasks/{id}/fail", post(tasks::admin_transition(TaskAction::Fail)))
        .route("/v1/admin/tasks/{id}/trail", get(tasks::trail))
        .route("/v1/tasks/{id}/calls", post(tasks::report_call))
        .route("/v1/tasks", get(tasks::list_own))
        .route("/v1/tasks/{id}", get(tasks::read_own))
        .route("/v1/tasks/{id}/revoke", post(tasks::revoke_own))
        .route("/v1/tasks/{id}/suspend", post(tasks::transition(TaskAction::Suspend)))
        .route("/v1/tasks/{id}/resume", post(tasks::transition(TaskAction::Resume)))
        .route("/v1/tasks/{id}/complete", post(tasks::transition(TaskAction::Complete)))
        .route("/v1/tasks/{id}/fail", post(tasks::transition(TaskAction::Fail)))
        .route("/v1/admin/revocations", get(revocations::list).post(revocations::revoke))
        .route("/v1/admin/blocks", get(revocations::list_blocks))
        .route("/v1/admin/replicas", get(replicas::list))
        .route("/v1/admin/audit", get(admin::list_audit))
        .route("/revocations", get(feed::follow))
        .route("/status-lists", get(status_lists::aggregation))
        .route("/status-lists/{id}", get(status_lists::status_list))
}

fn document_routes() -> Router<AppState> {
    Router::new()
        .route("/openapi.yaml", get(operations::openapi_yaml))
        .route("/openapi.json", get(operations::openapi_json))
        .route("/docs", get(operations::docs))
        .route("/docs/{file}", get(operations::docs_file))
}

fn operations_routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics))
}
