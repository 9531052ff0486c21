//! Authenticating extractors. A handler that takes one of them runs only for callers with that
//! permission.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    app::{
        ApiCaller, AuthError, AuthenticatedClient, Caller, Credentials, Error, LongBodyPermit, RequestContext,
        RequestError, RequesterCaller, ResourceCaller, Subscriber, UnredeemedClient,
    },
    domain::{
        admission::Family,
        audit::Event,
        id::ClientId,
        registry::client::{ADMIN_SCOPE, AUDIT_SCOPE, EVALUATE_SCOPE, INTROSPECT_SCOPE, TASKS_SCOPE},
        secret::Secret,
        settings::MAX_EVALUATION_BYTES,
    },
    http::{
        AppState,
        error::{oauth::OAuthError, problem::Problem},
        extract::{
            admission::AdmissionSlot,
            body::{LongBody, read, read_body},
            caller::{CallerSlot, note_client},
            form::{Form, decode_component},
            json::parse_media_type,
        },
    },
};

/// RFC 7523 §2.2
const JWT_BEARER_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The request that the form of a client states.
pub(in crate::http) trait ClientRequest: Sized + Send {
    /// The audit event of a form that does not parse.
    const EVENT: Event;
    /// The family of the request, which decides the limits of the client.
    const FAMILY: Family = Family::Exchange;

    /// Parses the form.
    fn parse(form: &Form) -> Result<Self, RequestError>;
}

/// A parsed form and the client that sent it. The client's assertion is not redeemed yet: the
/// endpoint redeems it in the transaction of its own write. A form that does not parse is recorded
/// as [`ClientRequest::EVENT`], and redeems the assertion.
#[derive(Debug)]
pub(in crate::http) struct ClientForm<R> {
    /// The client.
    pub client: UnredeemedClient,
    /// The parsed request.
    pub request: R,
    /// The id and the time of the request.
    pub cx: RequestContext,
}

impl<R: ClientRequest> FromRequest<AppState> for ClientForm<R> {
    type Rejection = OAuthError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, OAuthError> {
        let ReceivedForm { cx, headers, form, caller, slot } = extract_client_form(request).await?;
        let credentials = extract_credentials(&headers, &form).map_err(Error::from)?;
        let client = app.service.authenticate(credentials, &cx).await?;
        note_client(caller.as_ref(), client.id());
        // A throttled request leaves the assertion unused.
        slot.hold(app.service.admit_client(R::FAMILY, client.id())?);
        match R::parse(&form) {
            Ok(request) => Ok(Self { client, request, cx }),
            Err(error) => Err(app.service.reject_request(client, R::EVENT, error, &cx).await.into()),
        }
    }
}

/// A form and the client that sent it, authenticated by its own credentials or by an API token for
/// introspection.
#[derive(Debug)]
pub(in crate::http) struct ClientOrBearerForm {
    /// The client.
    pub client: AuthenticatedClient,
    /// The form.
    pub form: Form,
    /// The id and the time of the request.
    pub cx: RequestContext,
    /// The headers of the request.
    pub headers: HeaderMap,
}

impl FromRequest<AppState> for ClientOrBearerForm {
    type Rejection = OAuthError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, OAuthError> {
        let ReceivedForm { cx, headers, form, caller, slot } = extract_client_form(request).await?;
        let admit = |client: &ClientId| {
            note_client(caller.as_ref(), client);
            app.service.admit_client(Family::Introspection, client)
        };
        let client = if let Some(token) = find_bearer_token(&headers) {
            if form.get("client_assertion").is_some() || form.get("client_secret").is_some() {
                return Err(Error::from(AuthError::MultipleMethods).into());
            }
            let call = "POST /oauth2/introspect";
            let client = app.service.authorize(&token, &[INTROSPECT_SCOPE], call, &cx).await?.into_client();
            slot.hold(admit(client.id())?);
            client
        } else {
            let credentials = extract_credentials(&headers, &form).map_err(Error::from)?;
            let client = app.service.authenticate(credentials, &cx).await?;
            slot.hold(admit(client.id())?);
            client.redeem(&app.service, &cx).await?
        };
        Ok(Self { client, form, cx, headers })
    }
}

/// A resource that requests a decision, with the body of its request. The resource authenticates in
/// the headers: by HTTP Basic, or by an API token for evaluation.
#[derive(Debug)]
pub(in crate::http) struct EvaluationBody {
    /// The resource.
    pub caller: ResourceCaller,
    /// The body, at most 1 MiB of a declared JSON text.
    pub body: Bytes,
    /// The permission for a long body, to be kept until it is parsed.
    pub permit: Option<LongBodyPermit>,
    /// The id and the time of the request.
    pub cx: RequestContext,
}

impl FromRequest<AppState> for EvaluationBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let (client, cx) = authenticate_in_headers(&parts, app).await?;
        note_client(parts.extensions.get(), client.id());
        AdmissionSlot::of(&parts.extensions).hold(app.service.admit_client(Family::Evaluation, client.id())?);
        let caller = ResourceCaller::new(client)?;
        if parse_media_type(&parts.headers).is_none_or(|media| media != "application/json") {
            return Err(RequestError::MalformedJson("`content-type` must be application/json".into()).into());
        }
        match LongBody::of(Request::from_parts(parts.clone(), body)) {
            LongBody::Buffered(body) => {
                let body = body?.ok_or_else(Problem::evaluation_too_large)?;
                Ok(Self { caller, body, permit: None, cx })
            }
            LongBody::Unread(body) => {
                let permit = app.service.admit_long_body(caller.id()).map_err(Error::from)?;
                let body = read(body, MAX_EVALUATION_BYTES).await?.ok_or_else(Problem::evaluation_too_large)?;
                // Neither the snapshot nor the time must be older than the question: while the rest
                // of the body arrived, a revocation may have been acknowledged, or a token expired.
                parts.extensions.insert(RequestContext { now: app.service.clock().now(), ..cx });
                let (client, cx) = authenticate_in_headers(&parts, app).await?;
                Ok(Self { caller: ResourceCaller::new(client)?, body, permit: Some(permit), cx })
            }
        }
    }
}

async fn authenticate_in_headers(
    parts: &Parts,
    app: &AppState,
) -> Result<(AuthenticatedClient, RequestContext), Problem> {
    if find_bearer_token(&parts.headers).is_some() {
        let (token, call, cx) = extract_bearer(parts)?;
        let caller = app.service.authorize(&token, &[EVALUATE_SCOPE], &call, &cx).await?;
        return Ok((caller.into_client(), cx));
    }
    let cx = parts.extensions.get::<RequestContext>().cloned().ok_or(RequestError::MissingParameter("x-request-id"))?;
    let credentials = extract_credentials(&parts.headers, &Form::empty()).map_err(Error::from)?;
    let client = app.service.authenticate(credentials, &cx).await?;
    Ok((client.redeem(&app.service, &cx).await?, cx))
}

/// An admin with permission to change.
#[derive(Debug)]
pub(in crate::http) struct AdminOperator(pub ApiCaller, pub RequestContext);

impl FromRequestParts<AppState> for AdminOperator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let (caller, cx) = require_api_scope(parts, app, Family::Admin, &[ADMIN_SCOPE]).await?;
        Ok(Self(caller.with_approval(find_approval(&parts.headers)?), cx))
    }
}

/// An admin with permission to read.
#[derive(Debug)]
pub(in crate::http) struct AdminReader(pub ApiCaller, pub RequestContext);

impl FromRequestParts<AppState> for AdminReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let (caller, cx) = require_api_scope(parts, app, Family::Admin, &[ADMIN_SCOPE, AUDIT_SCOPE]).await?;
        Ok(Self(caller, cx))
    }
}

/// A client that takes part in tasks: an agent or a resource.
#[derive(Debug)]
pub(in crate::http) struct TaskClient(pub ApiCaller, pub RequestContext);

impl FromRequestParts<AppState> for TaskClient {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let (caller, cx) = require_api_scope(parts, app, Family::Tasks, &[TASKS_SCOPE]).await?;
        Ok(Self(caller, cx))
    }
}

/// A client that takes part in tasks, or a requester.
#[derive(Debug)]
pub(in crate::http) struct TaskParticipant(pub Caller, pub RequestContext);

impl FromRequestParts<AppState> for TaskParticipant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let (token, call, cx) = extract_bearer(parts)?;
        let caller = app.service.authorize_any(&token, &[TASKS_SCOPE], &call, &cx).await?;
        if let Caller::Client(caller) = &caller {
            note_client(parts.extensions.get(), caller.client().id());
        }
        AdmissionSlot::of(&parts.extensions).hold(app.service.admit_caller(&caller)?);
        Ok(Self(caller, cx))
    }
}

/// A requester, for their own tasks and grants.
#[derive(Debug)]
pub(in crate::http) struct RequesterAuth(pub RequesterCaller, pub RequestContext);

impl FromRequestParts<AppState> for RequesterAuth {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let (token, call, cx) = extract_bearer(parts)?;
        let caller = app.service.authorize_requester(&token, &call, &cx).await?;
        AdmissionSlot::of(&parts.extensions).hold(app.service.admit_requester(&caller)?);
        Ok(Self(caller, cx))
    }
}

/// A client that may follow the revocation log: a resource or an admin.
#[derive(Debug)]
pub(in crate::http) struct FeedSubscriber(pub Subscriber, pub RequestContext);

impl FromRequestParts<AppState> for FeedSubscriber {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let (token, call, cx) = extract_bearer(parts)?;
        let subscriber = app.service.authorize_subscriber(token, call, &cx).await?;
        note_client(parts.extensions.get(), subscriber.client());
        AdmissionSlot::of(&parts.extensions).hold(app.service.admit_client(Family::Feed, subscriber.client())?);
        Ok(Self(subscriber, cx))
    }
}

/// Returns the approval of a second person.
fn find_approval(headers: &HeaderMap) -> Result<Option<String>, RequestError> {
    let mut values = headers.get_all("errand-approval").iter();
    let (Some(value), duplicate) = (values.next(), values.next()) else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| duplicate.is_none());
    let rule = "must be one `approval` from `/v1/admin/approvals`";
    text.map(|text| Some(text.to_owned())).ok_or(RequestError::InvalidParameter("errand-approval", rule))
}

async fn require_api_scope(
    parts: &Parts,
    app: &AppState,
    family: Family,
    scopes: &[&str],
) -> Result<(ApiCaller, RequestContext), Problem> {
    let (token, call, cx) = extract_bearer(parts)?;
    let caller = app.service.authorize(&token, scopes, &call, &cx).await?;
    note_client(parts.extensions.get(), caller.client().id());
    AdmissionSlot::of(&parts.extensions).hold(app.service.admit_client(family, caller.client().id())?);
    Ok((caller, cx))
}

/// Returns the bearer token of a request, the method and path, and the request context.
fn extract_bearer(parts: &Parts) -> Result<(Secret, String, RequestContext), Problem> {
    let cx = parts.extensions.get::<RequestContext>().cloned().ok_or(RequestError::MissingParameter("x-request-id"))?;
    let token = find_bearer_token(&parts.headers).ok_or(Error::Auth(AuthError::MissingBearer))?;
    // The path is percent-encoded ASCII. It is cut at the length limit of names.
    let call = format!("{} {}", parts.method, parts.uri.path()).chars().take(512).collect::<String>();
    Ok((token, call, cx))
}

/// What arrived, before the client is authenticated.
struct ReceivedForm {
    cx: RequestContext,
    headers: HeaderMap,
    form: Form,
    caller: Option<CallerSlot>,
    slot: AdmissionSlot,
}

async fn extract_client_form(mut request: Request) -> Result<ReceivedForm, OAuthError> {
    let cx =
        request.extensions().get::<RequestContext>().cloned().ok_or(RequestError::MissingParameter("x-request-id"))?;
    let headers = std::mem::take(request.headers_mut());
    let slot = AdmissionSlot::of(request.extensions());
    if parse_media_type(&headers).is_none_or(|media| media != "application/x-www-form-urlencoded") {
        return Err(RequestError::MalformedForm.into());
    }
    let caller = request.extensions().get::<CallerSlot>().cloned();
    let body = read_body(request).await?.ok_or_else(OAuthError::too_large)?;
    Ok(ReceivedForm { cx, headers, form: Form::parse(&body)?, caller, slot })
}

/// Returns the credentials of a request, which must use exactly one authentication method (RFC 6749
/// §2.3).
fn extract_credentials(headers: &HeaderMap, form: &Form) -> Result<Credentials, AuthError> {
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let (header, duplicate) = (authorization.next(), authorization.next());
    let assertion = form.get("client_assertion").or(form.get("client_assertion_type"));
    if duplicate.is_some() || (header.is_some() && (assertion.is_some() || form.get("client_secret").is_some())) {
        return Err(AuthError::MultipleMethods);
    }
    match (header, form.get("client_secret"), assertion) {
        (_, Some(_), Some(_)) | (Some(_), None, Some(_)) => Err(AuthError::MultipleMethods),
        (_, Some(secret), None) => {
            let client = form.get("client_id").ok_or(AuthError::Malformed)?.to_owned();
            Ok(Credentials::Post { client, secret: Secret::new(secret.to_owned()) })
        }
        (Some(header), None, None) => {
            let credentials = parse_basic(header.to_str().map_err(|_| AuthError::Malformed)?)?;
            match (&credentials, form.get("client_id")) {
                (Credentials::Basic { client, .. } | Credentials::AmbiguousBasic { client, .. }, Some(id))
                    if id != client =>
                {
                    Err(AuthError::Malformed)
                }
                _ => Ok(credentials),
            }
        }
        (None, None, Some(_)) => {
            if form.get("client_assertion_type") != Some(JWT_BEARER_ASSERTION_TYPE) {
                return Err(AuthError::Malformed);
            }
            let assertion = form.get("client_assertion").ok_or(AuthError::Malformed)?;
            Ok(Credentials::Assertion {
                client: form.get("client_id").map(str::to_owned),
                assertion: Secret::new(assertion.to_owned()),
            })
        }
        (None, None, None) => Err(AuthError::MissingCredentials),
    }
}

/// Parses HTTP Basic credentials (RFC 7617). Client id and secret are form-encoded (RFC 6749
/// §2.3.1). Some clients do not encode the secret, so it is kept as sent too if that differs.
fn parse_basic(header: &str) -> Result<Credentials, AuthError> {
    let (scheme, encoded) = header.split_once(' ').ok_or(AuthError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(AuthError::WrongMethod);
    }
    let bytes = STANDARD.decode(encoded.trim()).map_err(|_| AuthError::Malformed)?;
    let text = Secret::new(String::from_utf8(bytes).map_err(|_| AuthError::Malformed)?);
    let (client, secret) = text.expose().split_once(':').ok_or(AuthError::Malformed)?;
    let client = decode_component(client.as_bytes()).map_err(|_| AuthError::Malformed)?;
    let decoded = decode_component(secret.as_bytes()).ok();
    Ok(match decoded {
        Some(decoded) if decoded == secret => Credentials::Basic { client, secret: Secret::new(decoded) },
        decoded => {
            let readings = decoded.into_iter().chain([secret.to_owned()]);
            Credentials::AmbiguousBasic { client, secrets: readings.map(Secret::new).collect() }
        }
    })
}

fn find_bearer_token(headers: &HeaderMap) -> Option<Secret> {
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let (header, duplicate) = (authorization.next()?, authorization.next());
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    (duplicate.is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| Secret::new(token.trim().to_owned()))
}
