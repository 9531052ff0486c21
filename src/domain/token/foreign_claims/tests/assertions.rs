//! Claims of client assertions, and of actor tokens of the same form.

use super::*;

const PLANNER: &str = "planner";

fn assertion(changes: &Value, token_endpoint: Option<&str>) -> Result<AssertionClaims, ClaimError> {
    let claims = json!({"iss": PLANNER, "sub": PLANNER, "aud": US, "iat": NOW, "exp": NOW + 60, "jti": "one"});
    let rules = AssertionRules {
        issuer: US,
        token_endpoint: token_endpoint.map(str::to_owned),
        leeway: Lifetime::seconds(30),
        max_lifetime: Lifetime::minutes(5),
    };
    let client = PLANNER.parse().unwrap();
    check_assertion(&with_changes(claims, changes), &client, &rules, Timestamp::from_unix(NOW))
}

#[test]
fn invalid_assertion_claims_are_rejected() {
    let endpoint = format!("{US}/oauth2/token");
    let not_it = || Err(ClaimError::ClientMismatch);
    let rows = [
        (json!({}), Ok(())),
        (json!({"iss": null}), not_it()),
        (json!({"sub": null}), not_it()),
        (json!({"iss": "reader"}), not_it()),
        (json!({"sub": "reader"}), not_it()),
        (json!({"iss": "reader", "sub": "reader"}), not_it()),
        (json!({"iss": "Planner", "sub": "Planner"}), not_it()),
        (json!({"iss": LOGIN}), not_it()),
        (json!({"iss": [PLANNER]}), Err(ClaimError::Malformed("iss"))),
        (json!({"aud": null}), Err(ClaimError::Missing("aud"))),
        (json!({"aud": [US]}), Err(ClaimError::InvalidAudience)),
        (json!({"aud": [US, LOGIN]}), Err(ClaimError::InvalidAudience)),
        (json!({"aud": format!("{US}/")}), Err(ClaimError::InvalidAudience)),
        (json!({"aud": endpoint}), Err(ClaimError::InvalidAudience)),
        (json!({"aud": ""}), Err(ClaimError::InvalidAudience)),
        (json!({"exp": null}), Err(ClaimError::Missing("exp"))),
        (json!({"exp": "null"}), Err(ClaimError::Missing("exp"))),
        (json!({"exp": 1.795_200_06e9}), Ok(())),
        (json!({"exp": 1_795_200_060.5, "iat": 1_795_200_000.5}), Ok(())),
        (json!({"exp": 1.8e9}), Err(ClaimError::LifetimeTooLong)),
        (json!({"exp": 1e300}), Err(ClaimError::OutOfRange("exp"))),
        (json!({"exp": "1795200060"}), Err(ClaimError::Malformed("exp"))),
        // The leeway applies here, because a client's clock may be behind.
        (json!({"exp": NOW - 29}), Ok(())),
        (json!({"exp": NOW - 30}), Err(ClaimError::Expired)),
        (json!({"iat": NOW + 30}), Ok(())),
        (json!({"iat": NOW + 31}), Err(ClaimError::NotYetValid)),
        (json!({"nbf": NOW + 31}), Err(ClaimError::NotYetValid)),
        (json!({"nbf": "now"}), Err(ClaimError::Malformed("nbf"))),
        (json!({"iat": null}), Ok(())),
        (json!({"exp": NOW + 330}), Ok(())),
        (json!({"exp": NOW + 331}), Err(ClaimError::LifetimeTooLong)),
        (json!({"iat": null, "exp": NOW + 331}), Err(ClaimError::LifetimeTooLong)),
        // A later `iat` does not extend the lifetime, and an earlier one counts from then.
        (json!({"iat": NOW + 30, "exp": NOW + 331}), Err(ClaimError::LifetimeTooLong)),
        (json!({"iat": NOW - 200, "exp": NOW + 130}), Ok(())),
        (json!({"iat": NOW - 200, "exp": NOW + 131}), Err(ClaimError::LifetimeTooLong)),
        (json!({"iat": 0}), Err(ClaimError::LifetimeTooLong)),
        (json!({"exp": 253_402_300_799_i64}), Err(ClaimError::LifetimeTooLong)),
        (json!({"jti": null}), Err(ClaimError::Missing("jti"))),
        (json!({"jti": ""}), Err(ClaimError::Missing("jti"))),
        (json!({"jti": "null"}), Err(ClaimError::Missing("jti"))),
        (json!({"jti": "x".repeat(1024)}), Ok(())),
        (json!({"jti": "x".repeat(1025)}), Err(ClaimError::TooLong("jti", 1024))),
        (json!({"jti": 7}), Err(ClaimError::Malformed("jti"))),
        (json!({"jti": "a\u{0}"}), Err(ClaimError::Malformed("jti"))),
    ];
    for (changes, want) in rows {
        assert_eq!(assertion(&changes, None).map(|_| ()), want, "{changes}");
    }
    for (aud, want) in [
        (json!(endpoint), Ok(())),
        (json!(US), Ok(())),
        (json!([endpoint]), Err(ClaimError::InvalidAudience)),
        (json!(format!("{endpoint}/")), Err(ClaimError::InvalidAudience)),
        (json!(format!("{US}/oauth2/introspect")), Err(ClaimError::InvalidAudience)),
    ] {
        assert_eq!(assertion(&json!({"aud": aud}), Some(&endpoint)).map(|_| ()), want, "{aud}");
    }
}

/// An id is remembered as long as its assertion would be accepted, and longer, for a replica whose
/// clock is behind.
#[test]
fn assertion_id_is_remembered_past_expiry_and_clock_skew() {
    for exp in [NOW - 29, NOW, NOW + 60, NOW + 330] {
        let claims = assertion(&json!({"exp": exp}), None).unwrap();
        let last = exp + 30;
        assert_eq!((claims.jti.as_str(), claims.remember_until.unix()), ("one", exp + 30 + 3600));
        assert!(claims.remember_until.unix() > last);
    }
}
