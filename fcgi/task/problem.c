/* problem: see problem.h. */
#include "task/problem.h"

#include <string.h>

struct row {
    const char *code;
    int status;
    const char *title;
    const char *detail;
};

#define PROBLEM_ROW(id, code, status, title, detail) {code, status, title, detail},
static const struct row rows[] = {{"none", 200, "", ""}, PROBLEMS(PROBLEM_ROW)};

int problem_status(enum problem problem)
{
    return rows[problem].status;
}

const char *problem_code(enum problem problem)
{
    return rows[problem].code;
}

bool problem_is_excusable(enum problem problem)
{
    return problem == PROBLEM_UPSTREAM_ERROR || problem == PROBLEM_UNREACHABLE ||
           problem == PROBLEM_UPSTREAM_INVALID || problem == PROBLEM_UPSTREAM_TIMEOUT ||
           problem == PROBLEM_UNAVAILABLE || problem == PROBLEM_OVERLOADED || problem == PROBLEM_RATE_LIMITED;
}

bool problem_may_pass(enum problem problem)
{
    return problem_is_excusable(problem) || problem == PROBLEM_UPSTREAM_AUTH ||
           problem == PROBLEM_TOO_MANY_WATCHERS;
}

void problem_members(enum problem problem, const char *request_id, struct buf *out)
{
    const struct row *row = &rows[problem];
    buf_addf(out, "{\"type\":\"urn:taskproxy:problem:%s\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\"",
             row->code, row->title, row->status, row->detail);
    buf_addf(out, ",\"code\":\"%s\",\"request_id\":", row->code);
    buf_add_json_string(out, request_id, strlen(request_id));
    buf_addf(
        out,
        ",\"message\":\"%s\",\"error\":{\"message\":\"%s\",\"type\":\"taskproxy_error\",\"code\":\"%s\"}",
        row->detail, row->detail, row->code);
}

void problem_body(enum problem problem, const char *request_id, struct buf *out)
{
    problem_members(problem, request_id, out);
    buf_putc(out, '}');
}
