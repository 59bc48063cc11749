/* main: parses the command line and runs the chosen mode. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/follow.h"
#include "server/master.h"
#include "task/route.h"
#include "cli/sign.h"
#include "cli/status.h"
#include "cli/try.h"
#include "lib/version.h"
#include "server/sandbox.h"
#include "server/status_server.h"
#include "server/worker.h"

#ifndef SYSCONFDIR
#define SYSCONFDIR "/etc"
#endif

#define DEFAULT_CONF SYSCONFDIR "/taskproxy/taskproxy.json"

static const char usage[] =
    "Usage: taskproxy [-c FILE] [OPTION]\n"
    "\n"
    "FastCGI proxy for the status of asynchronous generation tasks. Without an\n"
    "option, it serves in the foreground and logs to standard error.\n"
    "\n"
    "  -c, --config FILE    configuration file; default:\n"
    "                       " DEFAULT_CONF "\n"
    "  -t, --check-config [--as USER]\n"
    "                       check the configuration and all files that it names; as\n"
    "                       the service does that runs as this user\n"
    "  -T, --print-config   print the configuration with all defaults\n"
    "      --print-nginx[=NAME]\n"
    "                       print the nginx upstream blocks for it. NAME replaces\n"
    "                       taskproxy in the names of upstreams and variables\n"
    "      --status         print the status of the running taskproxy, without nginx.\n"
    "                       Exit status: 0 ready, 1 degraded or not ready, 2 no\n"
    "                       status, or usage error\n"
    "\n"
    "      --try PROVIDER ANSWER [RESULT]\n"
    "                       show how a provider file reads a recorded answer.\n"
    "                       PROVIDER is a provider file, or the name of one in the\n"
    "                       folder \"providers\" beside the configuration; ANSWER is\n"
    "                       a body, or the output of curl -i; RESULT is the answer\n"
    "                       to the second query, if the provider has one\n"
    "\n"
    "      --new-token      print a new team token and its line for the teams file\n"
    "      --sign --team NAME --task PROVIDER/ID --ttl 1h\n"
    "                       print the query string of a signed link, with which a\n"
    "                       browser can read that task for the given time\n"
    "      --sign --team NAME --tasks PROVIDER/ID,PROVIDER/ID,... --ttl 1h\n"
    "                       the same, for up to 100 tasks\n"
    "\n"
    "      --watch TASK [--url URL] [--team-token-file FILE]\n"
    "                       show the progress of a task until it ends. TASK is the\n"
    "                       URL of a task in either view, signed or not, or\n"
    "                       PROVIDER/ID at the taskproxy at --url (default:\n"
    "                       $TASKPROXY_URL or http://127.0.0.1). Exit status:\n"
    "                       0 succeeded, 1 failed or cancelled, 2 usage error,\n"
    "                       3 unknown task, 4 server unreachable or request\n"
    "                       refused, 130 interrupted\n"
    "\n"
    "  -V, --version        print the version\n"
    "  -h, --help           print this help\n"
    "\n"
    "If GATEWAY_INTERFACE is set, it runs as a CGI program: it answers one request,\n"
    "using the configuration file named by TASKPROXY_CONFIG.\n"
    "\n"
    "The manual is taskproxy(8) and taskproxy.json(5).\n";

/* Options with a letter, other modes, and the arguments of --sign, --watch and --check-config. */
enum { CONFIG = 'c', CHECK = 't', PRINT_CONFIG = 'T', VERSION = 'V', HELP = 'h' };
enum { RUN, PRINT_NGINX = 256, PRINT_TABLES, STATUS, TRY, NEW_TOKEN, SIGN, WATCH };
enum { TEAM = WATCH + 1, TASK, TASKS, TTL, URL, TOKEN_FILE, AS, N_OPTIONS };

static const struct option options[] = {{"config", required_argument, NULL, CONFIG},
                                        {"check-config", no_argument, NULL, CHECK},
                                        {"as", required_argument, NULL, AS},
                                        {"print-config", no_argument, NULL, PRINT_CONFIG},
                                        {"print-nginx", optional_argument, NULL, PRINT_NGINX},
                                        {"print-tables", no_argument, NULL, PRINT_TABLES}, /* for the build */
                                        {"status", no_argument, NULL, STATUS},
                                        {"try", required_argument, NULL, TRY},
                                        {"new-token", no_argument, NULL, NEW_TOKEN},
                                        {"sign", no_argument, NULL, SIGN},
                                        {"team", required_argument, NULL, TEAM},
                                        {"task", required_argument, NULL, TASK},
                                        {"tasks", required_argument, NULL, TASKS},
                                        {"ttl", required_argument, NULL, TTL},
                                        {"watch", required_argument, NULL, WATCH},
                                        {"url", required_argument, NULL, URL},
                                        {"team-token-file", required_argument, NULL, TOKEN_FILE},
                                        {"version", no_argument, NULL, VERSION},
                                        {"help", no_argument, NULL, HELP},
                                        {0}};

/* Prints and frees the error, if there is one; the exit status. */
static int report(char *error)
{
    if (error == NULL)
        return EXIT_SUCCESS;
    fprintf(stderr, "taskproxy: %s\n", error);
    free(error);
    return EXIT_FAILURE;
}

static struct conf *load(const char *path, struct files *files)
{
    char *error = NULL;
    struct conf *conf = conf_load(path, files, &error);
    (void)report(error);
    return conf;
}

enum { RETIREMENT_NEAR_DAYS = 30 };

static void warn_of_retirement(const struct conf *conf)
{
    for (size_t i = 0; i < conf->providers.n; i++) {
        const struct provider *provider = ((struct provider **)conf->providers.items)[i];
        int64_t days = provider->retires ? provider_days_left(provider, wall_ms() / 1000) : INT64_MAX;
        if (days <= RETIREMENT_NEAR_DAYS)
            fprintf(stderr, "taskproxy: warning: provider %s %s on %s\n", provider->name,
                    days < 0 ? "retired" : "retires", provider->retires);
    }
}

/* Checks all provider files of the folder, even if no route names them. */
static int check(const char *path, const struct conf *conf)
{
    char *error = conf_check_providers(conf);
    if (error == NULL)
        error = master_refuses(conf);
    if (error == NULL) {
        warn_of_retirement(conf);
        printf("%s: ok\n", path);
    }
    return report(error);
}

enum { PRINTED_MAX = 16 * 1024 * 1024 };

/* Frees the text. */
static int put(struct buf *text)
{
    bool whole = fwrite(text->data, 1, text->len, stdout) == text->len && fflush(stdout) == 0;
    buf_done(text);
    return whole ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* For conf/man/keys.awk, which makes the reference in taskproxy.json(5). Needs no configuration. */
static int print_tables(void)
{
    struct buf out;
    buf_init(&out, PRINTED_MAX);
    buf_puts(&out, "KEYS OF THE CONFIGURATION\t\n");
    schema_describe(&conf_table, &out);
    buf_puts(&out, "KEYS OF THE TEAMS FILE\t/NAME\n");
    schema_describe(&team_table, &out);
    buf_puts(&out, "KEYS OF A PROVIDER FILE\t\n");
    schema_describe(&provider_table, &out);
    return put(&out);
}

/* A provider is named by the path of its file, or by its name in the folder beside the configuration. */
static int run_try(const char *conf_path, const char *provider, int argc, char **argv)
{
    if (argc < 1 || argc > 2) {
        fputs("taskproxy: --try requires a provider and one or two answer files\n", stderr);
        return EXIT_FAILURE;
    }
    const char *slash = strrchr(conf_path, '/');
    int folder_len = slash == NULL ? 0 : (int)(slash - conf_path) + 1;
    char *path = strpbrk(provider, "/.") != NULL
                     ? xstrdup(provider)
                     : xasprintf("%.*sproviders/%s.json", folder_len, conf_path, provider);
    int status = try_answer(path, argv[0], argc == 2 ? argv[1] : NULL);
    free(path);
    return status;
}

static int use_conf(int mode, const char *const *given, const struct conf *conf)
{
    struct buf out;
    if (mode == CHECK)
        return check(given[CONFIG], conf);
    if (mode == SIGN)
        return report(
            sign_link(conf, &(struct sign_order){given[TEAM], given[TASK], given[TASKS], given[TTL]}));
    buf_init(&out, PRINTED_MAX);
    if (mode == PRINT_CONFIG)
        conf_print(conf, &out);
    else
        route_print_nginx(conf, given[PRINT_NGINX] ? given[PRINT_NGINX] : "taskproxy", &out);
    return put(&out);
}

static int run(int mode, const char *const *given)
{
    if (given[AS] != NULL && report(sandbox_read_as(given[AS])) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    if (mode == RUN)
        master_block_signals();
    bool prints = mode == PRINT_NGINX || mode == PRINT_CONFIG;
    enum files_mode needed = mode == RUN ? FILES_ALLOW_MISSING : prints ? FILES_PLAIN_ONLY : FILES_ALL;
    struct conf *conf = load(given[CONFIG], files_new(needed));
    if (conf == NULL)
        return EXIT_FAILURE;
    if (mode == RUN)
        return master_main(given[CONFIG], conf);
    int status = use_conf(mode, given, conf);
    conf_free(conf);
    return status;
}

static int run_cgi(void)
{
    const char *path = getenv("TASKPROXY_CONFIG");
    struct conf *conf = load(path ? path : DEFAULT_CONF, files_new(FILES_ALL));
    if (conf != NULL)
        return worker_cgi(conf);
    fputs(
        "Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\ntaskproxy is not configured.\n",
        stdout);
    return EXIT_FAILURE;
}

/* Of upstreams and variables of nginx. */
static const char name_characters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";

/* Why the options do not go together, or NULL. */
static const char *misuse(int mode, const char *const *given)
{
    if (mode != WATCH && (given[URL] != NULL || given[TOKEN_FILE] != NULL))
        return "--url and --team-token-file are options of --watch";
    const char *name = given[PRINT_NGINX];
    if (name != NULL && (name[0] < 'a' || name[strspn(name, name_characters)] != '\0'))
        return "the name for --print-nginx must be lower-case letters, digits and '_', first a letter";
    if (mode != SIGN &&
        (given[TEAM] != NULL || given[TASK] != NULL || given[TASKS] != NULL || given[TTL] != NULL))
        return "--team, --task, --tasks and --ttl are options of --sign";
    if (mode != CHECK && given[AS] != NULL)
        return "--as is an option of --check-config";
    return NULL;
}

static int run_mode(int mode, const char *const *given)
{
    switch (mode) {
    case VERSION:
        return puts("taskproxy " TASKPROXY_VERSION) < 0;
    case HELP:
        return fputs(usage, stdout) < 0;
    case PRINT_TABLES:
        return print_tables();
    case STATUS:
        return (int)status_show(given[CONFIG]);
    case NEW_TOKEN:
        return sign_new_token();
    case WATCH:
        return (int)follow_task(&(struct follow_order){given[WATCH], given[URL], given[TOKEN_FILE]});
    default:
        return run(mode, given);
    }
}

/* The exit status for wrong usage. */
static int misused(int mode)
{
    return mode == WATCH ? FOLLOW_USAGE : mode == STATUS ? STATUS_UNKNOWN : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    const char *given[N_OPTIONS] = {NULL}; /* the arguments of the options */
    int option, mode = RUN;
    given[CONFIG] = DEFAULT_CONF;
    if (getenv("GATEWAY_INTERFACE") != NULL) /* before any argument: clients choose those of a CGI program */
        return run_cgi();
    if (argc == 5 && strcmp(argv[1], "--worker") == 0) /* started by the master */
        return worker_main(atoi(argv[2]), atoi(argv[3]), argv[4]);
    if (argc == 2 + STATUS_SERVER_ARGS && strcmp(argv[1], "--status-server") == 0) /* likewise */
        return status_server_main(argv + 2);
    while ((option = getopt_long(argc, argv, "c:tTVh", options, NULL)) != -1) {
        if (option == '?') {
            fputs(usage, stderr);
            return misused(mode);
        }
        given[option] = optarg;
        if (option != CONFIG && option < TEAM)
            mode = option; /* the last one applies */
    }
    const char *why = misuse(mode, given);
    if (mode == TRY && why == NULL)
        return run_try(given[CONFIG], given[TRY], argc - optind, argv + optind);
    if (why != NULL)
        fprintf(stderr, "taskproxy: %s\n", why);
    else if (optind < argc)
        fprintf(stderr, "taskproxy: unexpected argument \"%s\"\n", argv[optind]);
    else
        return run_mode(mode, given);
    return misused(mode);
}
