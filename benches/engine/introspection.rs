//! Introspection without HTTP: of a token seen before, and of one seen first, beside the bare signature.

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use bytes::Bytes;
use errand::{
    app::{Credentials, Cx, Introspection, Service},
    config::Config,
    domain::{secret::Secret, token::TaskTokenClaims},
    house::{House, Migrations},
    http::{App, EdgeSettings, router},
    ports::Outage,
};
use tower::ServiceExt;

use crate::{
    Line, bare,
    cast::{Cast, UserTokens, token_in},
    support::TestStore,
    time,
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
    let bare = bare::measure(&cast, &tokens[0]).introspection();
    let secret = std::fs::read_to_string(folder.path().join("files.secret")).unwrap();
    let before = ask(&house.service, &tokens, &secret, "introspection of a token seen before", Some(3.0)).await;
    let first =
        ask(&forgetful.service, &tokens, &secret, "introspection of a token seen first", Some(1.15 * bare)).await;
    let signature =
        Line { what: "its signature, bare".into(), number: bare, unit: "us", allocations: None, at_most: None };
    vec![before, first, signature]
}

async fn ask(service: &Service, tokens: &[String], secret: &str, what: &str, at_most: Option<f64>) -> Line {
    let cx = Cx { request_id: "bench".parse().unwrap(), now: service.clock().now() };
    let credentials = Credentials::Basic { client: "files".into(), secret: Secret::new(secret.trim().to_owned()) };
    let caller = service.authenticate(credentials, &cx).await.unwrap().settle(service, &cx).await.unwrap();
    let mut next = 0;
    let mut ask = || {
        next += 1;
        let answer = service.introspect(&caller, &tokens[next % tokens.len()], tell, &cx).unwrap();
        assert!(matches!(answer, Introspection::Active(_)));
        answer
    };
    // Every one is on record and, where there is memory, known.
    for _ in tokens {
        ask();
    }
    service.finish().await;
    time(what, at_most, ask)
}

fn tell(claims: &TaskTokenClaims) -> Result<Bytes, Outage> {
    serde_json::to_vec(claims).map(Bytes::from).map_err(Outage::during("write the answer"))
}
