use super::*;

fn call_detail(members: &str) -> String {
    format!(r#"[{{"type":"mcp_tool","actions":["tools/call"],"identifier":"x",{members}}}]"#)
}

#[test]
fn detail_expands_to_product_of_its_arrays() {
    let authority = parse_one(
        r#"[{"type":"mcp_tool","locations":["https://a.example","https://b.example/"],"actions":["tools/call"],"identifier":"read"},
            {"type":"mcp_tool","actions":["tools/call"],"identifier":"read_file"}]"#,
    )
    .unwrap();
    let names = authority.iter().map(|p| format!("{} {}", p.resource, p.tool().unwrap())).collect::<Vec<_>>();
    assert_eq!(names, ["https://a.example read", "https://b.example read", "https://files.example.com/mcp read_file"]);
    let json = serde_json::to_string(&authority.restrict_to(&files())).unwrap();
    assert_eq!(
        json,
        r#"[{"actions":["tools/call"],"identifier":"read_file","locations":["https://files.example.com/mcp"],"type":"mcp_tool"}]"#
    );
    assert_eq!(parse_one(&json).unwrap(), serde_json::from_str::<Authority>(&json).unwrap());
}

#[test]
fn digest_and_listing_round_trip() {
    let digest = digest('A');
    for text in [
        format!(
            r#"[{{"actions":["tools/call"],"identifier":"t","locations":["{FILES}"],"tool_digest":"{digest}","type":"mcp_tool"}}]"#
        ),
        format!(r#"[{{"actions":["tools/list"],"locations":["{FILES}"],"type":"mcp_tool"}}]"#),
        format!(
            r#"[{{"actions":["resources/list"],"locations":["{FILES}"],"type":"mcp_tool"}},{{"actions":["tools/list"],"locations":["{FILES}"],"type":"mcp_tool"}}]"#
        ),
    ] {
        assert_eq!(serde_json::to_string(&parse_one(&text).unwrap()).unwrap(), text);
        assert_eq!(serde_json::from_str::<Authority>(&text).unwrap(), parse_one(&text).unwrap());
    }
    let both = r#"[{"type":"mcp_tool","actions":["tools/list","resources/list"]}]"#;
    assert_eq!(parse_one(both).unwrap().len(), 2);

    let at = |members: &str| format!(r#"[{{"type":"mcp_tool",{members}}}]"#);
    let apart = "authorization_details[0]: a list action has no tool; omit `identifier`, `constraints`, `additional_arguments` and `tool_digest`";
    let actions = "authorization_details[0].actions: must be [\"tools/call\"], or one or both of \"tools/list\" and \"resources/list\"";
    let bad_digest = "authorization_details[0].tool_digest: must be `sha-256:` and 43 characters of base64url";
    for (members, want) in [
        (r#""actions":["tools/list"],"identifier":"t""#.to_owned(), apart),
        (r#""actions":["tools/list"],"constraints":{}"#.to_owned(), apart),
        (r#""actions":["tools/list"],"additional_arguments":true"#.to_owned(), apart),
        (format!(r#""actions":["tools/list"],"tool_digest":"{digest}""#), apart),
        (r#""actions":["tools/call","tools/list"],"identifier":"t""#.to_owned(), actions),
        (r#""actions":["tools/list","tools/list"]"#.to_owned(), actions),
        (r#""actions":["prompts/list"]"#.to_owned(), actions),
        (r#""actions":[1]"#.to_owned(), actions),
        (r#""actions":[]"#.to_owned(), actions),
        (r#""actions":"tools/list""#.to_owned(), actions),
        (r#""actions":["tools/call"],"identifier":"t","tool_digest":"sha-256:A""#.to_owned(), bad_digest),
        (r#""actions":["tools/call"],"identifier":"t","tool_digest":null"#.to_owned(), bad_digest),
        (format!(r#""actions":["tools/call"],"identifier":"t","tool_digest":"{digest}=""#), bad_digest),
        (
            format!(r#""actions":["tools/call"],"identifier":"t","tool_digest":"{}""#, digest.as_str().to_uppercase()),
            bad_digest,
        ),
    ] {
        assert_eq!(parse_one(&at(&members)).unwrap_err(), want, "{members}");
    }
}

const PREFIX_RULE: &str =
    "must be a string without dot segments, empty segments, backslashes or other spellings of these";

/// RFC 9396 §2: an empty `locations` is not an absent one.
#[test]
fn locations_without_resource_are_rejected() {
    let rule = "must be an array of 1 to 64 resource URIs";
    for (locations, path, rule) in [
        ("[]", "", rule),
        ("null", "", rule),
        ("{}", "", rule),
        ("1", "", rule),
        (r#"["https:a.example"]"#, "[0]", "must be the URI of a resource"),
        (r#"["https://a.example",null]"#, "[1]", "must be the URI of a resource"),
    ] {
        let error = parse_one(&call_detail(&format!(r#""locations":{locations}"#))).unwrap_err();
        assert_eq!(error, format!("authorization_details[0].locations{path}: {rule}"), "{locations}");
    }
}

#[test]
fn details_error_names_location_and_never_sent_value() {
    let members = "authorization_details[0]: unknown member; the known ones are `type`, `locations`, `actions`, `identifier`, `constraints`, `additional_arguments` and `tool_digest`";
    let lossy = "contains a number that a double can't represent exactly (RFC 8785); use a string";
    let at = |path: &str, rule: &str| format!("authorization_details[0].constraints.{path}: {rule}");
    for (text, want) in [
        ("{}".into(), "authorization_details: must be an array of objects".into()),
        ("[]".into(), "authorization_details: must contain 1 to 64 objects".into()),
        ("[1]".into(), "authorization_details[0]: must be an object".into()),
        (
            r#"[{"type":"payment"}]"#.into(),
            "authorization_details[0].type: unknown type; use `mcp_tool`".into(),
        ),
        (
            r#"[{"identifier":"x"}]"#.into(),
            "authorization_details[0].type: unknown type; use `mcp_tool`".into(),
        ),
        (call_detail(r#""privileges":["admin"]"#), members.into()),
        (
            call_detail(r#""identifier":"a b""#).replacen(r#""identifier":"x","#, "", 1),
            "authorization_details[0].identifier: must be the name of a tool".into(),
        ),
        (
            call_detail(r#""locations":"https://a.example""#),
            "authorization_details[0].locations: must be an array of 1 to 64 resource URIs".into(),
        ),
        (
            call_detail(r#""locations":["https://a.example","a#b"]"#),
            "authorization_details[0].locations[1]: must be the URI of a resource".into(),
        ),
        (
            r#"[{"type":"mcp_tool","identifier":"x"}]"#.into(),
            "authorization_details[0].actions: must be [\"tools/call\"], or one or both of \"tools/list\" and \"resources/list\"".into(),
        ),
        (
            call_detail(r#""identifier":"y""#),
            "authorization_details: invalid JSON, a duplicate member, or nested too deeply".into(),
        ),
        (
            call_detail(r#""constraints":[]"#),
            "authorization_details[0].constraints: must be an object that maps argument names to rules".into(),
        ),
        (
            call_detail(r#""additional_arguments":"no""#),
            "authorization_details[0].additional_arguments: must be true or false".into(),
        ),
        (call_detail(r#""constraints":{"pa\u0000th":{"any":true}}"#), at("?", "the name must not contain a NUL character")),
        (call_detail(r#""constraints":{"path":"/etc"}"#), at("path", "must be an object, such as {\"one_of\": […]}")),
        (
            call_detail(r#""constraints":{"path":{}}"#),
            at("path", "empty rule; to allow any value, use {\"any\": true}"),
        ),
        (
            call_detail(r#""constraints":{"path":{"regex":".*"}}"#),
            at("path", "unknown constraint; use `equals`, `one_of`, `not_one_of`, `min`, `max`, `prefix`, `subset`, `max_length` or `any`"),
        ),
        (
            call_detail(r#""constraints":{"path":{"any":true,"prefix":"a"}}"#),
            at("path.any", "must be true, without other constraints"),
        ),
        (call_detail(r#""constraints":{"path":{"any":false}}"#), at("path.any", "must be true, without other constraints")),
        (
            call_detail(r#""constraints":{"path":{"equals":1,"one_of":[1]}}"#),
            at("path.equals", "can't be combined with `one_of`; use one of them"),
        ),
        (
            call_detail(r#""constraints":{"path":{"one_of":[]}}"#),
            at("path.one_of", "must be an array of at most 256 values"),
        ),
        (
            call_detail(r#""constraints":{"path":{"one_of":"a"}}"#),
            at("path.one_of", "must be an array of at most 256 values"),
        ),
        (call_detail(r#""constraints":{"n":{"min":"1"}}"#), at("n.min", "must be a number")),
        (call_detail(r#""constraints":{"n":{"min":1e400}}"#), at("n.min", lossy)),
        (call_detail(r#""constraints":{"n":{"max":9223372036854775808}}"#), at("n.max", lossy)),
        (call_detail(r#""constraints":{"n":{"one_of":[{"a":[0.1000000000000000055]}]}}"#), at("n.one_of", lossy)),
        (call_detail(r#""constraints":{"n":{"max_length":1.5}}"#), at("n.max_length", "must be an integer, 0 or more")),
        (call_detail(r#""constraints":{"n":{"max_length":-1}}"#), at("n.max_length", "must be an integer, 0 or more")),
        (call_detail(r#""constraints":{"p":{"min":2,"max":1}}"#), at("p", "no value satisfies this rule")),
        (call_detail(r#""constraints":{"p":{"min":2,"prefix":"a"}}"#), at("p", "no value satisfies this rule")),
        (call_detail(r#""constraints":{"p":{"not_one_of":[1,"a"]}}"#), at("p", "no value satisfies this rule")),
        (call_detail(r#""constraints":{"p":{"one_of":["a"],"min":1}}"#), at("p", "no value satisfies this rule")),
        (call_detail(r#""constraints":{"p":{"equals":"a\u0000b"}}"#), at("p.equals", "must not contain a NUL character")),
        // An unsafe name of an argument is not repeated.
        (
            call_detail(r#""constraints":{"p\"\n":{}}"#),
            at("?", "empty rule; to allow any value, use {\"any\": true}"),
        ),
    ] {
        assert_eq!(parse_one(&text), Err(want), "{text}");
    }
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(parse_one(&deep).unwrap_err().contains("nested too deeply"));
    assert!(parse_one(&" ".repeat(16_385)).unwrap_err().contains("16384"));
}

/// Values below such a prefix could leave it.
#[test]
fn prefix_with_traversal_or_wrong_type_is_rejected() {
    for value in [r#""/a/../b""#, r#""C:\\reports\\""#, r#""a%2fb""#, r#""..""#, r#""""#, "7"] {
        let text = call_detail(&format!(r#""constraints":{{"p":{{"prefix":{value}}}}}"#));
        assert_eq!(
            parse_one(&text),
            Err(format!("authorization_details[0].constraints.p.prefix: {PREFIX_RULE}")),
            "{value}"
        );
    }
}

/// The limit applies to the product, not to the sent text.
#[test]
fn details_expanding_beyond_size_limit_are_rejected() {
    let many = |sizes: usize, locations: usize| {
        let values = (0..sizes).map(|n| format!("\"{n:056}\"")).collect::<Vec<_>>().join(",");
        let locations = (0..locations).map(|n| format!("\"https://a{n}.example\"")).collect::<Vec<_>>().join(",");
        call_detail(&format!(r#""locations":[{locations}],"constraints":{{"p":{{"one_of":[{values}]}}}}"#))
    };
    assert_eq!(parse_one(&many(250, 1)).map(|authority| authority.len()), Ok(1));
    assert_eq!(parse_one(&many(1, 64)).map(|authority| authority.len()), Ok(64));
    for large in [many(250, 2), many(10, 64)] {
        assert!(large.len() <= 16_384);
        let want =
            "authorization_details: expands to more than 16384 bytes, with one detail for each location; request fewer";
        assert_eq!(parse_one(&large).unwrap_err(), want);
    }
}

#[test]
fn granted_details_have_one_serialization() {
    for (members, want) in [
        (
            r#""constraints":{"path":{"one_of":["/b","/a","/b"]},"limit":{"max":1e2}}"#,
            r#","constraints":{"limit":{"max":100},"path":{"one_of":["/a","/b"]}}"#,
        ),
        (r#""constraints":{"path":{"one_of":["/a"]}}"#, r#","constraints":{"path":{"equals":"/a"}}"#),
        (r#""constraints":{},"additional_arguments":true"#, ""),
        (r#""additional_arguments":false"#, r#","additional_arguments":false"#),
        (
            r#""constraints":{"a":{"any":true}},"additional_arguments":true"#,
            r#","additional_arguments":true,"constraints":{"a":{"any":true}}"#,
        ),
        (r#""constraints":{"a":{"subset":[],"max_length":3}}"#, r#","constraints":{"a":{"max_length":3,"subset":[]}}"#),
        (
            r#""constraints":{"a":{"not_one_of":[1.50],"min":-0}}"#,
            r#","constraints":{"a":{"min":0,"not_one_of":[1.5]}}"#,
        ),
    ] {
        let authority = parse_one(&call_detail(members)).unwrap();
        let canonical = serde_json_canonicalizer::to_string(&authority).unwrap();
        let (head, rest) = (
            r#""actions":["tools/call"]"#,
            r#","identifier":"x","locations":["https://files.example.com/mcp"],"type":"mcp_tool""#,
        );
        // Members are sorted, so those of the permission are between the two.
        let additional = want.starts_with(r#","additional"#);
        let (extra, tail) = want.split_once(r#","constraints""#).unwrap_or((want, ""));
        let tail = if tail.is_empty() { String::new() } else { format!(r#","constraints"{tail}"#) };
        let want =
            if additional { format!("[{{{head}{extra}{tail}{rest}}}]") } else { format!("[{{{head}{want}{rest}}}]") };
        assert_eq!(canonical, want, "{members}");
        assert_eq!(serde_json::from_str::<Authority>(&canonical).unwrap(), authority, "{members}");
        assert_eq!(parse_one(&canonical).unwrap().hash(), authority.hash(), "{members}");
    }
}

#[test]
fn hash_is_of_canonical_form() {
    let a = parse_one(&call_detail(r#""constraints":{"b":{"max":1},"a":{"equals":"x"}}"#)).unwrap();
    let again =
        parse_one(&call_detail(r#""additional_arguments":false,"constraints":{"a":{"one_of":["x"]},"b":{"max":1.0}}"#))
            .unwrap();
    let other = parse_one(&call_detail(r#""constraints":{"b":{"max":2},"a":{"equals":"x"}}"#)).unwrap();
    assert_eq!(a.hash(), again.hash());
    assert_ne!(a.hash(), other.hash());
    assert!(a.hash().starts_with("sha-256:") && a.hash().len() == 51);
}
