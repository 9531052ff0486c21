//! Evaluation agrees with introspection and the rules that a guard applies to its answer, for
//! generated tokens and calls.

use std::collections::BTreeMap;

use errand::domain::authority::{Arg, parse_details};
use serde_json::{Value, json};

use crate::{
    evaluation::{call, detail},
    server::{FILES, Server},
};

on_both_stores!(evaluation_agrees_with_introspection);

/// A small generator. The same numbers come out each time, so that a failure can be repeated.
struct Generator(u64);

impl Generator {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn one_of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    fn value(&mut self) -> Value {
        self.one_of(&[
            json!(1),
            json!(2.5),
            json!("/a"),
            json!("/a/b"),
            json!("/a/../b"),
            json!("x"),
            json!(["x"]),
            json!(["x", "/a"]),
            json!(true),
            json!(null),
            json!({"k": 1}),
        ])
    }

    fn rule(&mut self) -> Value {
        let value = self.value();
        self.one_of(&[
            json!({"equals": value}),
            json!({"one_of": ["x", "/a", 1]}),
            json!({"not_one_of": ["x"]}),
            json!({"min": 2}),
            json!({"max": 2, "min": 1}),
            json!({"prefix": "/a/"}),
            json!({"subset": ["x", "y"]}),
            json!({"max_length": 2}),
            json!({"any": true}),
        ])
    }

    fn details(&mut self) -> Value {
        let count = 1 + self.below(3);
        let details = (0..count).map(|_| {
            let mut rules = serde_json::Map::new();
            for name in ["a", "b"] {
                if self.below(3) == 0 {
                    rules.insert(name.to_owned(), self.rule());
                }
            }
            let tool = self.one_of(&["read_file", "list_files", "write_file"]);
            let mut detail = detail(tool, Value::Object(rules.clone()));
            if rules.is_empty() {
                detail.as_object_mut().unwrap().remove("constraints");
            } else {
                detail["additional_arguments"] = json!(self.below(2) == 0);
            }
            detail
        });
        Value::Array(details.collect())
    }

    fn arguments(&mut self) -> Value {
        let mut arguments = serde_json::Map::new();
        for name in ["a", "b", "c"] {
            if self.below(2) > 0 {
                arguments.insert(name.to_owned(), self.value());
            }
        }
        Value::Object(arguments)
    }
}

/// Decides as a guard does that introspects.
fn guard_permits(introspection: &Value, tool: &str, arguments: &Value) -> bool {
    if introspection["active"] != true {
        return false;
    }
    let authority = parse_details(&introspection["authorization_details"].to_string(), None).unwrap();
    let arguments = arguments.as_object().unwrap().iter();
    let arguments: BTreeMap<_, _> =
        arguments.map(|(name, value)| (name.clone(), Arg::try_from(value.clone()).unwrap())).collect();
    authority.allows(&FILES.parse().unwrap(), &tool.parse().unwrap(), &arguments)
}

async fn evaluation_agrees_with_introspection(server: Server) {
    let mut generator = Generator(7);
    let (mut permitted, mut denied) = (0, 0);
    for round in 0..24 {
        let details = generator.details();
        let form = server.exchange_form(&server.user_token(json!({})));
        let text = details.to_string();
        let changes = [("scope", ""), ("authorization_details", text.as_str())];
        let (status, body) =
            server.post_as_planner("/oauth2/token", &crate::server::form_with_changes(&form, &changes)).await;
        // A contradictory constraint gets no token.
        let Some(token) = body["access_token"].as_str() else {
            assert_eq!(status, 400, "{body}");
            continue;
        };
        if round % 6 == 5 {
            let claims = crate::server::decode_claims(token);
            server.revoke(json!({"kind": "token", "id": claims["jti"], "reason": "a test"})).await;
        }
        let introspection = server.introspect(token).await;
        for _ in 0..12 {
            let tool = generator.one_of(&["read_file", "list_files", "write_file", "delete_file"]);
            let arguments = generator.arguments();
            let expected = guard_permits(&introspection, tool, &arguments);
            let answer = server.evaluate(&call(token, tool, arguments.clone())).await;
            assert_eq!(answer["decision"], expected, "{details} {tool} {arguments} {answer}");
            *(if expected { &mut permitted } else { &mut denied }) += 1;
        }
    }
    assert!(permitted >= 40 && denied >= 60, "{permitted} permitted, {denied} denied");
    server.stop().await;
}
