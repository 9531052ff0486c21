//! The extractors that are permissions: a handler that takes one of them runs only for whom it names.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    app::{
        ApiCaller, AuthFault, AuthenticatedClient, BadRequest, Caller, Credentials, Cx, Failure, Listener,
        RequesterCaller, Unsettled,
    },
    domain::{
        audit::Event,
        client::{API_ADMIN, API_AUDIT, API_INTROSPECT, API_TASKS},
        secret::Secret,
    },
    http::{
        App,
        body::{media_type, read_body},
        error::OAuthError,
        form::{Form, decode},
        problem::Problem,
    },
};

/// RFC 7523 §2.2
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A form and the client that sent it, its assertion not yet redeemed: for endpoints that redeem it in the transaction
/// of what they do. There is one way to the form, and it can't lose the client.
#[derive(Debug)]
pub(super) struct ByClient {
    client: Unsettled,
    form: Form,
    cx: Cx,
}

impl ByClient {
    /// Reads the form. One that is not in the grammar is refused: that goes on record as `event`, and uses the assertion
    /// up.
    pub(super) async fn read<T>(
        self,
        app: &App,
        event: Event,
        grammar: impl FnOnce(&Form) -> Result<T, BadRequest>,
    ) -> Result<(Unsettled, T, Cx), Failure> {
        match grammar(&self.form) {
            Ok(request) => Ok((self.client, request, self.cx)),
            Err(bad) => Err(app.service.refuse_request(self.client, event, bad, &self.cx).await),
        }
    }
}

impl FromRequest<App> for ByClient {
    type Rejection = OAuthError;

    async fn from_request(request: Request, app: &App) -> Result<Self, OAuthError> {
        let (cx, headers, form) = read_form(request, app).await?;
        let credentials = credentials(&headers, &form).map_err(Failure::from)?;
        let client = app.service.authenticate(credentials, &cx).await?;
        Ok(Self { client, form, cx })
    }
}

/// A form and the client that sent it, authenticated in any way: by its own credentials or, as a resource, by an API
/// token for introspection.
#[derive(Debug)]
pub(super) struct ByClientOrBearer {
    /// The client.
    pub client: AuthenticatedClient,
    /// The form.
    pub form: Form,
    /// The request's name and time.
    pub cx: Cx,
    /// Its headers.
    pub headers: HeaderMap,
}

impl FromRequest<App> for ByClientOrBearer {
    type Rejection = OAuthError;

    async fn from_request(request: Request, app: &App) -> Result<Self, OAuthError> {
        let (cx, headers, form) = read_form(request, app).await?;
        let client = if let Some(token) = bearer(&headers) {
            if form.one("client_assertion").is_some() || form.one("client_secret").is_some() {
                return Err(Failure::from(AuthFault::Several).into());
            }
            app.service.authorize(&token, &[API_INTROSPECT], "POST /oauth2/introspect", &cx).await?.into_client()
        } else {
            let credentials = credentials(&headers, &form).map_err(Failure::from)?;
            app.service.authenticate(credentials, &cx).await?.settle(&app.service, &cx).await?
        };
        Ok(Self { client, form, cx, headers })
    }
}

/// An admin who may change things.
#[derive(Debug)]
pub(super) struct Operator(pub ApiCaller, pub Cx);

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (caller, cx) = by_api_token(parts, app, &[API_ADMIN]).await?;
        Ok(Self(caller, cx))
    }
}

/// An admin who may read.
#[derive(Debug)]
pub(super) struct Reader(pub ApiCaller, pub Cx);

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (caller, cx) = by_api_token(parts, app, &[API_ADMIN, API_AUDIT]).await?;
        Ok(Self(caller, cx))
    }
}

/// A client that takes part in tasks: an agent or a resource.
#[derive(Debug)]
pub(super) struct Participant(pub ApiCaller, pub Cx);

impl FromRequestParts<App> for Participant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (caller, cx) = by_api_token(parts, app, &[API_TASKS]).await?;
        Ok(Self(caller, cx))
    }
}

/// A client that takes part in tasks, or a requester.
#[derive(Debug)]
pub(super) struct Party(pub Caller, pub Cx);

impl FromRequestParts<App> for Party {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (token, call, cx) = bearer_call(parts)?;
        Ok(Self(app.service.authorize_any(&token, &[API_TASKS], &call, &cx).await?, cx))
    }
}

/// A requester, about their own tasks and grants.
#[derive(Debug)]
pub(super) struct Own(pub RequesterCaller, pub Cx);

impl FromRequestParts<App> for Own {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (token, call, cx) = bearer_call(parts)?;
        Ok(Self(app.service.authorize_requester(&token, &call, &cx).await?, cx))
    }
}

/// A client that may follow the revocation log: a resource or an admin.
#[derive(Debug)]
pub(super) struct Follower(pub Listener, pub Cx);

impl FromRequestParts<App> for Follower {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (token, call, cx) = bearer_call(parts)?;
        Ok(Self(app.service.listener(token, call, &cx).await?, cx))
    }
}

async fn by_api_token(parts: &Parts, app: &App, scopes: &[&str]) -> Result<(ApiCaller, Cx), Problem> {
    let (token, call, cx) = bearer_call(parts)?;
    let caller = app.service.authorize(&token, scopes, &call, &cx).await?;
    Ok((caller, cx))
}

/// The bearer token of a request, what it calls, its name and time.
fn bearer_call(parts: &Parts) -> Result<(Secret, String, Cx), Problem> {
    let cx = parts.extensions.get::<Cx>().cloned().ok_or(BadRequest::Missing("x-request-id"))?;
    let token = bearer(&parts.headers).ok_or(Failure::Client(AuthFault::NoBearer))?;
    // As it was sent, so in ASCII; and no longer than names are.
    let call = format!("{} {}", parts.method, parts.uri.path()).chars().take(512).collect::<String>();
    Ok((token, call, cx))
}

async fn read_form(mut request: Request, _: &App) -> Result<(Cx, HeaderMap, Form), OAuthError> {
    let cx = request.extensions().get::<Cx>().cloned().ok_or(BadRequest::Missing("x-request-id"))?;
    let headers = std::mem::take(request.headers_mut());
    if media_type(&headers).is_none_or(|media| media != "application/x-www-form-urlencoded") {
        return Err(BadRequest::NotAForm.into());
    }
    let body = read_body(request).await?.ok_or_else(OAuthError::too_large)?;
    Ok((cx, headers, Form::parse(&body)?))
}

/// The one way of client authentication that the request has (RFC 6749 §2.3).
fn credentials(headers: &HeaderMap, form: &Form) -> Result<Credentials, AuthFault> {
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let (header, more) = (authorization.next(), authorization.next());
    let assertion = form.one("client_assertion").or(form.one("client_assertion_type"));
    if more.is_some() || (header.is_some() && (assertion.is_some() || form.one("client_secret").is_some())) {
        return Err(AuthFault::Several);
    }
    match (header, form.one("client_secret"), assertion) {
        (_, Some(_), Some(_)) | (Some(_), None, Some(_)) => Err(AuthFault::Several),
        // client_secret_post: registered for nobody.
        (_, Some(_), None) => Err(AuthFault::Method),
        (Some(header), None, None) => {
            let credentials = basic(header.to_str().map_err(|_| AuthFault::Malformed)?)?;
            match (&credentials, form.one("client_id")) {
                (Credentials::Basic { client, .. }, Some(id)) if id != client => Err(AuthFault::Malformed),
                _ => Ok(credentials),
            }
        }
        (None, None, Some(_)) => {
            if form.one("client_assertion_type") != Some(JWT_BEARER) {
                return Err(AuthFault::Malformed);
            }
            let assertion = form.one("client_assertion").ok_or(AuthFault::Malformed)?;
            Ok(Credentials::Assertion {
                client: form.one("client_id").map(str::to_owned),
                assertion: Secret::new(assertion.to_owned()),
            })
        }
        (None, None, None) => Err(AuthFault::None),
    }
}

/// HTTP Basic (RFC 7617) with both halves form-encoded (RFC 6749 §2.3.1).
fn basic(header: &str) -> Result<Credentials, AuthFault> {
    let (scheme, encoded) = header.split_once(' ').ok_or(AuthFault::Malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(AuthFault::Method);
    }
    let bytes = STANDARD.decode(encoded.trim()).map_err(|_| AuthFault::Malformed)?;
    let text = Secret::new(String::from_utf8(bytes).map_err(|_| AuthFault::Malformed)?);
    let (client, secret) = text.expose().split_once(':').ok_or(AuthFault::Malformed)?;
    let half = |half: &str| decode(half.as_bytes()).map_err(|_| AuthFault::Malformed);
    Ok(Credentials::Basic { client: half(client)?, secret: Secret::new(half(secret)?) })
}

fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (one, more) = (all.next()?, all.next());
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    (more.is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| Secret::new(token.trim().to_owned()))
}
