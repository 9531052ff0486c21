//! The edge: syntax and status codes. A handler is an extractor that is the permission, one call, an answer.

mod admin;
mod error;
mod extract;
mod health;
mod middleware;
mod negotiation;
mod oauth;
mod revocation_feed;
mod server;
mod status_lists;
mod views;

use std::{sync::Arc, time::Duration};

use axum::{
    Router, middleware as axum_middleware,
    routing::{delete, get, post},
};

pub use extract::form::Form;
pub use middleware::metrics::Metrics;
pub use server::listener::{Listener, Tls, TlsError, serve};

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
        .method_not_allowed_fallback(middleware::guard::method_not_allowed)
        .fallback(middleware::guard::not_found)
        // One layer: each is a few allocations for each request.
        .layer(axum_middleware::from_fn_with_state(
            (app.clone(), settings.request_timeout),
            middleware::request_log::log_request,
        ))
        .with_state(app)
}

fn oauth_routes() -> Router<AppState> {
    Router::new()
        .route("/oauth2/token", post(oauth::token))
        .route("/oauth2/introspect", post(oauth::introspect))
        .route("/oauth2/revoke", post(oauth::revoke))
        .route("/oauth2/authorize", get(oauth::metadata::authorize))
        .route("/oauth2/jwks", get(oauth::metadata::jwks))
        .route("/.well-known/oauth-authorization-server", get(oauth::metadata::metadata))
}

fn api_routes() -> Router<AppState> {
    Router::new()
        .merge(admin::registry::object_routes("/v1/admin/agents", ObjectKind::Agent))
        .merge(admin::registry::object_routes("/v1/admin/resources", ObjectKind::Resource))
        .merge(admin::registry::object_routes("/v1/admin/issuers", ObjectKind::Issuer))
        .merge(admin::registry::object_routes("/v1/admin/admins", ObjectKind::Admin))
        .route("/v1/admin/resources/{id}/catalogue", get(admin::catalogue::read))
        .route("/v1/admin/resources/{id}/catalogue/import", post(admin::catalogue::import))
        .route("/v1/admin/resources/{id}/catalogue/accept", post(admin::catalogue::accept))
        .route("/v1/admin/clients/{id}/secret", post(admin::registry::create_secret))
        .route(
            "/v1/admin/grants",
            get(admin::grants::list).post(admin::grants::create).delete(admin::grants::withdraw_all),
        )
        .route("/v1/admin/grants/{id}", delete(admin::grants::withdraw))
        .route("/v1/admin/break-glass", get(admin::break_glass::list).post(admin::break_glass::create))
        .route("/v1/admin/break-glass/{id}", get(admin::break_glass::read))
        .route("/v1/admin/break-glass/{id}/review", post(admin::break_glass::review))
        .route("/v1/grants", get(admin::grants::list_own).post(admin::grants::create_own))
        .route("/v1/grants/{id}", delete(admin::grants::withdraw_own))
        .route("/v1/admin/keys", get(admin::registry::list_keys))
        .route("/v1/admin/keys/rotate", post(admin::registry::rotate_keys))
        .route("/v1/admin/keys/{kid}/revoke", post(admin::registry::revoke_key))
        .route("/v1/admin/tokens", get(admin::registry::list_tokens))
        .route("/v1/admin/tokens/{id}", get(admin::registry::read_token))
        .route("/v1/admin/tasks", get(admin::tasks::list))
        .route("/v1/admin/tasks/{id}", get(admin::tasks::read))
        .route("/v1/admin/tasks/{id}/suspend", post(admin::tasks::admin_transition(TaskAction::Suspend)))
        .route("/v1/admin/tasks/{id}/resume", post(admin::tasks::admin_transition(TaskAction::Resume)))
        .route("/v1/admin/tasks/{id}/complete", post(admin::tasks::admin_transition(TaskAction::Complete)))
        .route("/v1/admin/tasks/{id}/fail", post(admin::tasks::admin_transition(TaskAction::Fail)))
        .route("/v1/admin/tasks/{id}/trail", get(admin::tasks::trail))
        .route("/v1/tasks/{id}/calls", post(admin::tasks::report_call))
        .route("/v1/tasks", get(admin::tasks::list_own))
        .route("/v1/tasks/{id}", get(admin::tasks::read_own))
        .route("/v1/tasks/{id}/revoke", post(admin::tasks::revoke_own))
        .route("/v1/tasks/{id}/suspend", post(admin::tasks::transition(TaskAction::Suspend)))
        .route("/v1/tasks/{id}/resume", post(admin::tasks::transition(TaskAction::Resume)))
        .route("/v1/tasks/{id}/complete", post(admin::tasks::transition(TaskAction::Complete)))
        .route("/v1/tasks/{id}/fail", post(admin::tasks::transition(TaskAction::Fail)))
        .route("/v1/admin/revocations", get(admin::revocations::list).post(admin::revocations::revoke))
        .route("/v1/admin/blocks", get(admin::revocations::list_blocks))
        .route("/v1/admin/replicas", get(admin::replicas::list))
        .route("/v1/admin/audit", get(admin::registry::list_audit))
        .route("/revocations", get(revocation_feed::follow))
        .route("/status-lists", get(status_lists::aggregation))
        .route("/status-lists/{id}", get(status_lists::status_list))
}

fn document_routes() -> Router<AppState> {
    Router::new()
        .route("/openapi.yaml", get(health::openapi_yaml))
        .route("/openapi.json", get(health::openapi_json))
        .route("/docs", get(health::docs))
        .route("/docs/{file}", get(health::docs_file))
}

fn operations_routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
}
