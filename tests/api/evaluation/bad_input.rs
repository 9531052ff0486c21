//! Hostile bodies: too long, too deep, ambiguous, and numbers that a double does not hold.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    evaluation::{EVALUATION, EVALUATIONS, call},
    server::{Server, read_response, secret},
};

on_both_stores!(malformed_bodies_are_rejected, long_bodies_are_read_up_to_a_mebibyte, numbers_are_judged_exactly);

impl Server {
    async fn send_evaluation(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.post(path).basic_auth("files", Some(secret("files")));
        let request = request.header("content-type", "application/json").body(body);
        let (status, answer) = read_response(request.send().await.unwrap()).await;
        (status.as_u16(), answer)
    }
}

/// Returns the body with raw JSON as the arguments.
fn with_arguments(token: &str, arguments: &str) -> String {
    call(token, "read_file", json!("ARGUMENTS")).to_string().replace("\"ARGUMENTS\"", arguments)
}

async fn malformed_bodies_are_rejected(server: Server) {
    let token = server.task_token().await;
    let good = with_arguments(&token, "{}");
    let nested =
        |levels: usize| with_arguments(&token, &format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels)));
    let twice = |member: &str| good.replacen(member, &format!("{member},{member}"), 1);
    for path in [EVALUATION, EVALUATIONS] {
        // The body, `resource`, `properties` and `arguments` are four levels.
        assert_eq!(server.send_evaluation(path, nested(60)).await.0, 200);
        for (name, body, text) in [
            ("empty", String::new(), "not valid JSON at line 1, column 0"),
            ("not JSON", "subject=alice".into(), "not valid JSON"),
            ("cut", good[..good.len() - 1].to_owned(), "not valid JSON"),
            ("two values", format!("{good}{good}"), "not valid JSON"),
            ("a byte order mark", format!("\u{feff}{good}"), "not valid JSON"),
            ("an array", format!("[{good}]"), "must be an object"),
            ("a string", "\"x\"".into(), "must be an object"),
            ("NaN", with_arguments(&token, r#"{"a":NaN}"#), "not valid JSON"),
            ("65 levels", nested(61), "nested more than 64 levels deep"),
            ("10,000 levels", nested(10_000), "nested more than 64 levels deep"),
            ("a duplicate entity", twice(r#""action":{"name":"tools/call"}"#), "duplicate member `action`"),
            ("a duplicate id", twice(r#""id":"alice""#), "duplicate member `id`"),
            ("a duplicate token", twice(&format!(r#""token":"{token}""#)), "duplicate member `token`"),
            ("a duplicate argument", with_arguments(&token, r#"{"a":1,"a":1}"#), "duplicate member `a`"),
            ("an escaped duplicate", with_arguments(&token, r#"{"a":1,"\u0061":2}"#), "duplicate member `a`"),
            ("a deep duplicate", with_arguments(&token, r#"{"a":[{"b":1,"b":2}]}"#), "duplicate member `b`"),
            ("a duplicate elsewhere", good.replacen('{', r#"{"x":{"y":1,"y":2},"#, 1), "duplicate member `y`"),
            ("arguments that are null", with_arguments(&token, "null"), "must be an object"),
            ("an endless exponent", with_arguments(&token, r#"{"a":1e99999999999999999999}"#), "exponent is too large"),
        ] {
            let (status, answer) = server.send_evaluation(path, body).await;
            let detail = answer["detail"].as_str().unwrap_or_default();
            assert!(status == 400 && detail.contains(text), "{path} {name}: {status} {answer}");
            assert!(answer.get("decision").is_none() && !detail.contains(&token[..20]), "{answer}");
        }
        let (status, answer) = server.send_evaluation(path, good.replace("read_file", "\u{1}").into_bytes()).await;
        assert_eq!(status, 400, "a control character in a string: {answer}");
        let mut bytes = good.clone().into_bytes();
        let at = good.find("alice").unwrap();
        bytes[at] = 0xff;
        assert_eq!(server.send_evaluation(path, bytes).await.0, 400, "not UTF-8");
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""] {
            let request = server.post(path).basic_auth("files", Some(secret("files")));
            let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
            let (status, answer) = read_response(request.body(good.clone()).send().await.unwrap()).await;
            assert_eq!(status, 400, "{kind} {answer}");
        }
    }
    server.stop().await;
}

async fn long_bodies_are_read_up_to_a_mebibyte(server: Server) {
    const MEBIBYTE: usize = 1024 * 1024;
    let token = server.task_token().await;
    let body_of = |length: usize| {
        let empty = with_arguments(&token, r#"{"text":""}"#);
        let body = with_arguments(&token, &format!(r#"{{"text":"{}"}}"#, "x".repeat(length - empty.len())));
        assert_eq!(body.len(), length);
        body
    };
    for length in [64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 300_000, MEBIBYTE] {
        for path in [EVALUATION, EVALUATIONS] {
            let (status, answer) = server.send_evaluation(path, body_of(length)).await;
            assert_eq!((status, &answer["decision"]), (200, &json!(true)), "{length} {answer}");
        }
    }
    for length in [MEBIBYTE + 1, 2 * MEBIBYTE] {
        let (status, answer) = server.send_evaluation(EVALUATION, body_of(length)).await;
        assert_eq!((status, &answer["type"]), (413, &json!("urn:errand:problem:too_large")), "{length} {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("1048576 bytes"), "{answer}");
    }
    // In chunks, without a declared length.
    let chunks = body_of(200_000).into_bytes().chunks(777).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let chunks = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
    let (status, answer) = server.send_evaluation(EVALUATION, reqwest::Body::wrap_stream(chunks)).await;
    assert_eq!((status, &answer["decision"]), (200, &json!(true)), "{answer}");
    // A stranger can't send more than elsewhere: the response does not wait for the rest.
    let mut stranger = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {EVALUATION} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {MEBIBYTE}\r\n\r\n",
        server.address
    );
    stranger.write_all(head.as_bytes()).await.unwrap();
    stranger.write_all(&body_of(MEBIBYTE).as_bytes()[..=64 * 1024]).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(stranger.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer));
    // A large number of values.
    for arguments in [
        format!(r#"{{"a":[{}]}}"#, vec!["1"; 100_000].join(",")),
        format!("{{{}}}", (0..20_000).map(|n| format!(r#""m{n}":0"#)).collect::<Vec<_>>().join(",")),
        format!(r#"{{"a":[{}]}}"#, vec!["{}"; 60_000].join(",")),
    ] {
        let (status, answer) = server.send_evaluation(EVALUATION, with_arguments(&token, &arguments)).await;
        assert_eq!((status, &answer["decision"]), (200, &json!(true)), "{answer}");
    }
    // The evaluations of a batch share the arguments.
    let shared = with_arguments(&token, &format!(r#"{{"a":[{}]}}"#, vec!["1"; 100_000].join(",")));
    let batch = shared.replacen('{', &format!(r#"{{"evaluations":[{}],"#, vec!["{}"; 64].join(",")), 1);
    let (status, answer) = server.send_evaluation(EVALUATIONS, batch).await;
    assert_eq!((status, answer["evaluations"].as_array().map(Vec::len)), (200, Some(64)), "{answer}");
    server.stop().await;
}

async fn numbers_are_judged_exactly(server: Server) {
    let token = server.task_token().await;
    for (number, is_exact) in [
        ("0", true),
        ("-0", true),
        ("1.0", true),
        ("1E2", true),
        ("0.1", true),
        ("9007199254740991", true),
        ("9007199254740992", true),
        ("9007199254740993", false),
        ("9223372036854775807", false),
        ("9223372036854775808", false),
        ("9223372036854776000", true),
        ("18446744073709551616", false),
        ("1e400", false),
        ("-1e400", false),
        ("1e-400", false),
        ("1000.00000000000001", false),
        ("0.1000000000000000055511151231257827", false),
    ] {
        for (place, arguments) in [
            ("arguments.n", format!(r#"{{"n":{number}}}"#)),
            ("arguments.a[1].b", format!(r#"{{"a":[0,{{"b":{number}}}]}}"#)),
        ] {
            let (status, answer) = server.send_evaluation(EVALUATION, with_arguments(&token, &arguments)).await;
            let context = &answer["context"];
            let found = (status, &answer["decision"], context["reason"].as_str(), context["at"].as_str());
            let expected = if is_exact { (None, None) } else { (Some("constraint"), Some(place)) };
            assert_eq!(found, (200, &json!(is_exact), expected.0, expected.1), "{number}");
        }
    }
    // Elsewhere, a number decides nothing.
    let body = with_arguments(&token, "{}").replacen('{', r#"{"x":1e400,"#, 1);
    assert_eq!(server.send_evaluation(EVALUATION, body).await.1["decision"], true);
    server.stop().await;
}
