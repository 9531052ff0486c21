//! The table of routes. The router is built from it, and tests compare it with the API description.

use axum::{
    Router,
    routing::{MethodFilter, on},
};

use crate::{
    domain::{
        registry::ObjectKind::{Admin, Agent, Issuer, Resource},
        task::TaskAction::{Complete, Fail, Resume, Suspend},
    },
    http::{AppState, admin, evaluation, health, oauth, openapi, revocation_feed, self_service, status_lists},
};

/// A method and a path, such as `("GET", "/v1/admin/keys")`.
pub type Route = (&'static str, &'static str);

/// Defines groups of routes: a function that returns the router of each group, and [`routes`].
macro_rules! routes {
    ($($(#[$doc:meta])* $group:ident { $($method:ident $path:literal => $handler:expr;)+ })+) => {
        $(
            $(#[$doc])*
            pub(super) fn $group() -> Router<AppState> {
                Router::new()$(.route($path, on(MethodFilter::$method, $handler)))+
            }
        )+

        /// Returns every route of the public listener and of the operations listener.
        #[must_use]
        pub fn routes() -> Vec<Route> {
            vec![$($((stringify!($method), $path)),+),+]
        }
    };
}

routes! {
    /// The OAuth endpoints.
    oauth {
        POST "/oauth2/token" => oauth::token::token;
        POST "/oauth2/introspect" => oauth::introspect::introspect;
        POST "/oauth2/revoke" => oauth::revoke::revoke;
        GET "/oauth2/authorize" => oauth::metadata::authorize;
        GET "/oauth2/jwks" => oauth::metadata::jwks;
        GET "/.well-known/oauth-authorization-server" => oauth::metadata::metadata;
    }

    /// The decision endpoints (AuthZEN).
    evaluation {
        POST "/access/v1/evaluation" => evaluation::evaluate;
        POST "/access/v1/evaluations" => evaluation::evaluate_batch;
        GET "/.well-known/authzen-configuration" => evaluation::metadata;
    }

    /// The administration API.
    admin {
        GET "/v1/admin/agents" => admin::registry::list(Agent);
        GET "/v1/admin/agents/{id}" => admin::registry::read(Agent);
        PUT "/v1/admin/agents/{id}" => admin::registry::put(Agent);
        DELETE "/v1/admin/agents/{id}" => admin::registry::remove(Agent);
        GET "/v1/admin/resources" => admin::registry::list(Resource);
        GET "/v1/admin/resources/{id}" => admin::registry::read(Resource);
        PUT "/v1/admin/resources/{id}" => admin::registry::put(Resource);
        DELETE "/v1/admin/resources/{id}" => admin::registry::remove(Resource);
        GET "/v1/admin/issuers" => admin::registry::list(Issuer);
        GET "/v1/admin/issuers/{id}" => admin::registry::read(Issuer);
        PUT "/v1/admin/issuers/{id}" => admin::registry::put(Issuer);
        DELETE "/v1/admin/issuers/{id}" => admin::registry::remove(Issuer);
        POST "/v1/admin/issuers/{id}/keys/refresh" => admin::issuer_keys::refresh;
        GET "/v1/admin/admins" => admin::registry::list(Admin);
        GET "/v1/admin/admins/{id}" => admin::registry::read(Admin);
        PUT "/v1/admin/admins/{id}" => admin::registry::put(Admin);
        DELETE "/v1/admin/admins/{id}" => admin::registry::remove(Admin);
        POST "/v1/admin/clients/{id}/secret" => admin::secrets::create;

        GET "/v1/admin/resources/{id}/catalogue" => admin::catalogue::read;
        POST "/v1/admin/resources/{id}/catalogue/import" => admin::catalogue::import;
        POST "/v1/admin/resources/{id}/catalogue/accept" => admin::catalogue::accept;

        GET "/v1/admin/grants" => admin::grants::list;
        POST "/v1/admin/grants" => admin::grants::create;
        DELETE "/v1/admin/grants" => admin::grants::withdraw_all;
        DELETE "/v1/admin/grants/{id}" => admin::grants::withdraw;
        GET "/v1/admin/break-glass" => admin::break_glass::list;
        POST "/v1/admin/break-glass" => admin::break_glass::create;
        GET "/v1/admin/break-glass/{id}" => admin::break_glass::read;
        POST "/v1/admin/break-glass/{id}/review" => admin::break_glass::review;

        POST "/v1/admin/approvals" => admin::approvals::approve;

        GET "/v1/admin/keys" => admin::keys::list;
        POST "/v1/admin/keys/rotate" => admin::keys::rotate;
        POST "/v1/admin/keys/{kid}/revoke" => admin::keys::revoke;

        GET "/v1/admin/tokens" => admin::tokens::list;
        GET "/v1/admin/tokens/{id}" => admin::tokens::read;

        GET "/v1/admin/tasks" => admin::tasks::list;
        GET "/v1/admin/tasks/{id}" => admin::tasks::read;
        GET "/v1/admin/tasks/{id}/trail" => admin::tasks::trail;
        POST "/v1/admin/tasks/{id}/suspend" => admin::tasks::transition(Suspend);
        POST "/v1/admin/tasks/{id}/resume" => admin::tasks::transition(Resume);
        POST "/v1/admin/tasks/{id}/complete" => admin::tasks::transition(Complete);
        POST "/v1/admin/tasks/{id}/fail" => admin::tasks::transition(Fail);

        GET "/v1/admin/revocations" => admin::revocations::list;
        POST "/v1/admin/revocations" => admin::revocations::revoke;
        GET "/v1/admin/blocks" => admin::blocks::list;
        GET "/v1/admin/replicas" => admin::replicas::list;
        GET "/v1/admin/audit" => admin::audit::list;
        GET "/v1/admin/audit/checkpoints" => admin::audit::list_checkpoints;
        GET "/v1/admin/audit/keys" => admin::audit::checkpoint_keys;
    }

    /// The APIs for requesters, agents and resources.
    self_service {
        GET "/v1/tasks" => self_service::tasks::list;
        GET "/v1/tasks/{id}" => self_service::tasks::read;
        POST "/v1/tasks/{id}/revoke" => self_service::tasks::revoke;
        POST "/v1/tasks/{id}/suspend" => self_service::tasks::transition(Suspend);
        POST "/v1/tasks/{id}/resume" => self_service::tasks::transition(Resume);
        POST "/v1/tasks/{id}/complete" => self_service::tasks::transition(Complete);
        POST "/v1/tasks/{id}/fail" => self_service::tasks::transition(Fail);
        POST "/v1/tasks/{id}/calls" => self_service::calls::report;

        GET "/v1/grants" => self_service::grants::list;
        POST "/v1/grants" => self_service::grants::create;
        DELETE "/v1/grants" => self_service::grants::refuse;
        DELETE "/v1/grants/{id}" => self_service::grants::withdraw;
    }

    /// The revocation feed, whose requests may take longer.
    feed {
        GET "/revocations" => revocation_feed::follow;
    }

    /// Public documents.
    public {
        GET "/status-lists" => status_lists::aggregation;
        GET "/status-lists/{id}" => status_lists::status_list;
        GET "/openapi.yaml" => openapi::yaml;
        GET "/openapi.json" => openapi::json;
        GET "/docs" => openapi::docs;
        GET "/docs/{file}" => openapi::docs_file;
    }

    /// Health probes and metrics.
    operations {
        GET "/healthz" => health::healthz;
        GET "/readyz" => health::readyz;
        GET "/metrics" => health::metrics;
    }
}
