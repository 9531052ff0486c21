//! Introspection without HTTP: of a token seen before, and of one seen first, beside the bare signature.

use std::hint::black_box;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use bytes::Bytes;
use errand::{
    app::{Credentials, Cx, Introspection, Service},
    config::Config,
    domain::{decode, secret::Secret, token::TaskTokenClaims},
    house::{House, Migrations},
    http::{App, EdgeSettings, router},
    ports::Outage,
};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;
use tower::ServiceExt;

use crate::{
    Line,
    cast::{Cast, UserTokens, token_in},
    support::TestStore,
    time, time_both,
};

const TOKENS: usize = 256;

pub async fn measure() -> Vec<Line> {
    let store = TestStore::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let cast = Cast::new(([127, 0, 0, 1], 1).into());
    cast.configure(folder.path(), store.url());
    let config = || Config::load(&folder.path().join("errand.toml"), &|_| None).unwrap();
    let house = House::open(&config(), Migrations::Always).await.unwrap();
    house.furnish(&config()).await.unwrap();
    let mut without = config();
    without.memory.verified_tokens = 0;
    let forgetful = House::open(&without, Migrations::Always).await.unwrap();

    let app = router(App::new(house.service.clone()), EdgeSettings::default());
    let mut tokens = Vec::new();
    for request in cast.exchanges(UserTokens::Es256, TOKENS).all.iter() {
        let text = std::str::from_utf8(request).unwrap();
        let form = text.split_once("\r\n\r\n").unwrap().1.to_owned();
        let request = Request::post("/oauth2/token").header("content-type", "application/x-www-form-urlencoded");
        let response = app.clone().oneshot(request.body(Body::from(form)).unwrap()).await.unwrap();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        tokens.push(token_in(std::str::from_utf8(&body).unwrap()));
    }
    let secret = std::fs::read_to_string(folder.path().join("files.secret")).unwrap();
    let mut known = asking(&house.service, &tokens, &secret).await;
    let before = time("introspection of a token seen before", Some(3.0), &mut known);
    let mut unknown = asking(&forgetful.service, &tokens, &secret).await;
    let mut bare = verifying(&app, &tokens).await;
    // In turns: whatever else the machine does is done to both.
    let (mut first, signature) =
        time_both(("introspection of a token seen first", &mut unknown), ("its signature, bare", &mut bare));
    first.at_most = Some(1.15 * signature.number);
    vec![before, first, signature]
}

/// Asks about one token after the other. Every one is on record and, where there is memory, known.
async fn asking<'a>(service: &'a Service, tokens: &'a [String], secret: &str) -> impl FnMut() + 'a {
    let cx = Cx { request_id: "bench".parse().unwrap(), now: service.clock().now() };
    let credentials = Credentials::Basic { client: "files".into(), secret: Secret::new(secret.trim().to_owned()) };
    let caller = service.authenticate(credentials, &cx).await.unwrap().settle(service, &cx).await.unwrap();
    let mut next = 0;
    let mut ask = move || {
        next += 1;
        let answer = service.introspect(&caller, &tokens[next % tokens.len()], tell, &cx).unwrap();
        assert!(matches!(black_box(answer), Introspection::Active(_)));
    };
    for _ in tokens {
        ask();
    }
    service.finish().await;
    ask
}

/// Verifies the same tokens, one after the other, with the key that signed them: the same library, and nothing around it.
async fn verifying(app: &Router, tokens: &[String]) -> impl FnMut() + use<> {
    let response = app.clone().oneshot(Request::get("/oauth2/jwks").body(Body::empty()).unwrap()).await.unwrap();
    let keys: Value = serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap();
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["alg"] == "ES256").unwrap();
    let part = |name: &str| decode(key[name].as_str().unwrap()).unwrap();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [vec![4], part("x"), part("y")].concat());
    let signed = tokens.iter().map(|token| {
        let (message, signature) = token.rsplit_once('.').unwrap();
        (message.to_owned(), decode(signature).unwrap())
    });
    let signed = signed.collect::<Vec<_>>();
    let mut next = 0;
    move || {
        next += 1;
        let (message, signature) = &signed[next % signed.len()];
        key.verify(message.as_bytes(), signature).unwrap();
    }
}

fn tell(claims: &TaskTokenClaims) -> Result<Bytes, Outage> {
    Introspection::told(claims)
}
