/* The first byte selects: a teams file, or the query string of a signed link. A refusal has a reason, no two teams
 * share a token, and every value read from a link is inside its query string. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "access/link.h"
#include "../unit/given.h"

static struct provider sora = {.name = (char *)"sora"};
static struct provider *served[] = {&sora};
static const struct list providers = {.items = served, .n = NELEMS(served)};

static void load_teams(const char *text, size_t len)
{
    const struct given given[] = {{"/x/t.json", text, len}, {"/x/s", "0123456789abcdef0123456789abcdef", 0}};
    struct files *files = given_files(given, NELEMS(given));
    char *error = NULL;
    const struct file *file = files_get(files, "/x/t.json", FILE_PLAIN, TEAMS_FILE_MAX, &error);
    struct teams teams = {0};
    error = teams_load(files, file, &providers, &teams);
    if (error == NULL)
        PROMISE(teams.list.n > 0 && teams_by_token(&teams, text, len) == NULL);
    teams_done(&teams);
    files_free(files);
    free(error);
}

static void read_link(const char *query)
{
    struct link link;
    if (link_read(query, &link) != PROBLEM_NONE)
        return;
    PROMISE(strstr(query, link.team) != NULL && strstr(query, link.sig) != NULL && link.exp > 0);
    PROMISE(strstr(query, link.kid) != NULL);
    PROMISE(link.is_list == (link.tasks[0] != '\0') && strlen(link.tasks) < LINK_TASKS_SIZE);
    struct named_secret named = {link.kid, {.text = link.sig}};
    const struct team team = {
        .name = link.team, .link_secrets = {&named, 1}, .plain_link_secrets = {{.text = link.sig}}};
    PROMISE(link_check(&link, &team, link.exp, 1) == PROBLEM_WRONG_LINK);
    PROMISE(!link_has_task(link.tasks, "sora", "x,y") && !link_has_task("sora/x", link.tasks, "y"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    char *text = xstrndup((const char *)data + 1, size - 1);
    if (data[0] % 2 == 0)
        load_teams((const char *)data + 1, size - 1);
    else
        read_link(text);
    free(text);
    return 0;
}
