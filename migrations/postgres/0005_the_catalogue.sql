-- What MCP servers say of their tools, and what of that an admin has accepted. It lies beside the objects, since the file owns
-- some of those and knows nothing of digests.

CREATE TABLE tools (
    resource text COLLATE "C" NOT NULL,     -- the client id of the resource
    tool text COLLATE "C" NOT NULL,         -- its name there
    accepted text,                          -- the digest of the definition that is good
    accepted_definition text,               -- its canonical JSON: name, description, inputSchema
    accepted_at bigint CHECK (accepted_at >= 0),
    accepted_by text,                       -- `admin:NAME`
    seen text,                              -- the digest of what the server said last; null: it does not list the tool
    seen_definition text,                   -- its canonical JSON. Written by a stranger
    seen_at bigint CHECK (seen_at >= 0),      -- when it was first seen like this
    PRIMARY KEY (resource, tool),
    CHECK ((accepted IS NULL) = (accepted_definition IS NULL)),
    CHECK ((accepted IS NULL) = (accepted_at IS NULL)),
    CHECK ((accepted IS NULL) = (accepted_by IS NULL)),
    CHECK ((seen IS NULL) = (seen_definition IS NULL)),
    CHECK ((seen IS NULL) = (seen_at IS NULL))
);
