export ERRAND_SERVER=http://127.0.0.1:8080
as() { client=$1; shift; errand token "$@" --client "$client" --secret-file "errand-dev/$client.secret"; }
umask 077

# The planner works for alice: it gets a token for one MCP server, one tool and five minutes.
errand dev user-token --sub alice >errand-dev/user.token
as planner exchange --subject-token-file errand-dev/user.token --resource http://127.0.0.1:8090/mcp \
  --scope files:read --purpose 'quarterly report' --bare >errand-dev/task.token
as files introspect --token-file errand-dev/task.token

# The planner delegates a part of its task to the reader, which gets its own token.
as planner exchange --subject-token-file errand-dev/task.token --to reader --scope files:read --bare >errand-dev/hand-over.token
as reader exchange --subject-token-file errand-dev/hand-over.token --resource http://127.0.0.1:8090/mcp \
  --scope files:read --bare >errand-dev/reader.token
as files introspect --token-file errand-dev/reader.token

# The planner revokes its token. The reader's token was derived from it and becomes inactive too.
as planner revoke --token-file errand-dev/task.token
as files introspect --token-file errand-dev/reader.token
