//! The list of an adapter's statements: each is a constant, and a test prepares every one against the schema.

/// Makes the constants, and `STATEMENTS` with the name and the text of each.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: &str = $sql;)*

        /// Every statement with its name, for the test that prepares them.
        pub const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

pub(crate) use statements;
