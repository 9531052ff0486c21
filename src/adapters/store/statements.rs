//! The declaration of an adapter's SQL statements. Each is a constant, and a test prepares every
//! one against the schema.

/// Declares a constant for each statement, and `STATEMENTS` with the name and the text of all.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: &str = $sql;)*

        /// All statements with their names, for the test that prepares them.
        pub const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

pub(crate) use statements;
