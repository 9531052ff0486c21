export ERRAND_SERVER=http://127.0.0.1:8080
as() { client=$1; shift; errand token "$@" --client "$client" --secret-file "errand-dev/$client.secret"; }
umask 077

# planner works for alice: one MCP server, one tool, five minutes
errand dev user-token --sub alice >errand-dev/user.token
as planner exchange --subject-token-file errand-dev/user.token --resource http://127.0.0.1:8090/mcp \
  --scope files:read --purpose 'quarterly report' --bare >errand-dev/task.token
as files introspect --token-file errand-dev/task.token

# planner hands a part over to reader, who gets a token of its own for it
as planner exchange --subject-token-file errand-dev/task.token --to reader --scope files:read --bare >errand-dev/handed.token
as reader exchange --subject-token-file errand-dev/handed.token --resource http://127.0.0.1:8090/mcp \
  --scope files:read --bare >errand-dev/reader.token
as files introspect --token-file errand-dev/reader.token

# planner takes its token back, and that of reader is dead with it
as planner revoke --token-file errand-dev/task.token
as files introspect --token-file errand-dev/reader.token
