//! Introspection without HTTP: of a cached token, of a new token, and the bare signature for
//! comparison; and a decision about a call with a cached token.

use std::{hint::black_box, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use bytes::Bytes;
use errand::{
    app::{Credentials, EvaluationRequest, Introspection, RequestContext, ResourceCaller, Service},
    bootstrap::{Application, MigrationPolicy},
    config::Config,
    domain::{
        authority::{Arg, Permission},
        decode_base64url,
        evaluation::{Arguments, Question, TOOL_TYPE},
        secret::Secret,
        token::TaskTokenClaims,
    },
    http::{AppState, HttpSettings, router},
};
use futures_util::FutureExt;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;
use tower::ServiceExt;

use crate::{
    Line,
    fixtures::{Fixtures, UserTokens, access_token_of},
    measure_both, measure_one,
    support::TestStore,
};

const TOKENS: usize = 256;

pub async fn measure() -> Vec<Line> {
    let store = TestStore::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let cast = Fixtures::new(([127, 0, 0, 1], 1).into());
    cast.configure(folder.path(), store.url());
    let config = || Config::load(&folder.path().join("errand.toml"), &|_| None).unwrap();
    let application = Application::build(&config(), MigrationPolicy::Always).await.unwrap();
    application.initialize(&config()).await.unwrap();
    let mut without = config();
    without.memory.verified_tokens = 0;
    let uncached = Application::build(&without, MigrationPolicy::Always).await.unwrap();

    let app = router(AppState::new(application.service.clone()), HttpSettings::default());
    let mut tokens = Vec::new();
    for request in cast.exchanges(UserTokens::Es256, TOKENS).all.iter() {
        let text = std::str::from_utf8(request).unwrap();
        let form = text.split_once("\r\n\r\n").unwrap().1.to_owned();
        let request = Request::post("/oauth2/token").header("content-type", "application/x-www-form-urlencoded");
        let response = app.clone().oneshot(request.body(Body::from(form)).unwrap()).await.unwrap();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        tokens.push(access_token_of(std::str::from_utf8(&body).unwrap()));
    }
    let secret = std::fs::read_to_string(folder.path().join("files.secret")).unwrap();
    let mut known = introspect_in_process(&application.service, &tokens, &secret).await;
    let cached = measure_one("introspection of a cached token", Some(3.0), &mut known);
    let mut decide = evaluate_in_process(&application.service, &tokens, &secret).await;
    let limit = Some(cached.value + 3.0);
    let decided = measure_one("decision about a call with a cached token", limit, &mut decide);
    let mut unknown = introspect_in_process(&uncached.service, &tokens, &secret).await;
    let mut bare = introspect_over_router(&app, &tokens).await;
    // Alternate, so that other load on the machine affects both.
    let (mut first, signature) =
        measure_both(("introspection of a new token", &mut unknown), ("its signature alone", &mut bare));
    first.limit = Some(1.15 * signature.value);
    vec![cached, decided, first, signature]
}

/// Introspects one token after the other. Every token is recorded and, with a cache, cached.
async fn introspect_in_process<'a>(service: &'a Service, tokens: &'a [String], secret: &str) -> impl FnMut() + 'a {
    let cx = RequestContext::internal("bench".parse().unwrap(), service.clock().now());
    let credentials = Credentials::Basic { client: "files".into(), secret: Secret::new(secret.trim().to_owned()) };
    let caller = service.authenticate(credentials, &cx).await.unwrap().redeem(service, &cx).await.unwrap();
    let mut next = 0;
    let mut ask = move || {
        next += 1;
        // A token without break-glass is introspected without waiting for anything.
        let result = service.introspect(&caller, &tokens[next % tokens.len()], &cx).now_or_never().unwrap().unwrap();
        let Introspection::Active(active) = result else { unreachable!("every token is active") };
        black_box(active.encoded(encode_response).unwrap());
    };
    for _ in tokens {
        ask();
    }
    service.shutdown().await;
    ask
}

/// Decides about a call with one token after the other. The call is permitted, and only reads.
async fn evaluate_in_process<'a>(service: &'a Service, tokens: &'a [String], secret: &str) -> impl FnMut() + 'a {
    let cx = RequestContext::internal("bench".parse().unwrap(), service.clock().now());
    let credentials = Credentials::Basic { client: "files".into(), secret: Secret::new(secret.trim().to_owned()) };
    let client = service.authenticate(credentials, &cx).await.unwrap().redeem(service, &cx).await.unwrap();
    let caller = ResourceCaller::new(client).unwrap();
    let request = |token: &String| {
        let payload = decode_base64url(token.split('.').nth(1).unwrap()).unwrap();
        let claims = TaskTokenClaims::read(&payload).unwrap();
        let Arg::Object(arguments) = Arg::parse(r#"{"path": "/reports/q3.md", "limit": 100}"#, 64).unwrap() else {
            unreachable!("an object")
        };
        let question = Question {
            subject: claims.sub.to_string(),
            agent: Some(claims.client_id.to_string()),
            action: "tools/call".to_owned(),
            resource_type: TOOL_TYPE.to_owned(),
            resource_id: claims.authorization_details.iter().find_map(Permission::tool).unwrap().to_string(),
            arguments: Arc::new(Arguments::from(arguments)),
        };
        EvaluationRequest { token: Secret::new(token.clone()), question }
    };
    let requests = tokens.iter().map(request).collect::<Vec<_>>();
    let mut next = 0;
    move || {
        next += 1;
        let decision = service.evaluate(&caller, &requests[next % requests.len()], &cx).now_or_never();
        assert!(black_box(decision.unwrap().unwrap()).is_permitted());
    }
}

/// Verifies only the signatures of the same tokens, with the same library.
async fn introspect_over_router(app: &Router, tokens: &[String]) -> impl FnMut() + use<> {
    let response = app.clone().oneshot(Request::get("/oauth2/jwks").body(Body::empty()).unwrap()).await.unwrap();
    let keys: Value = serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap();
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["alg"] == "ES256").unwrap();
    let part = |name: &str| decode_base64url(key[name].as_str().unwrap()).unwrap();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [vec![4], part("x"), part("y")].concat());
    let signed = tokens.iter().map(|token| {
        let (message, signature) = token.rsplit_once('.').unwrap();
        (message.to_owned(), decode_base64url(signature).unwrap())
    });
    let signed = signed.collect::<Vec<_>>();
    let mut next = 0;
    move || {
        next += 1;
        let (message, signature) = &signed[next % signed.len()];
        key.verify(message.as_bytes(), signature).unwrap();
    }
}

fn encode_response(claims: &TaskTokenClaims) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(claims).map(Bytes::from)
}
