/* main: parses the command line and runs the chosen mode. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/follow.h"
#include "server/master.h"
#include "task/route.h"
#include "cli/sign.h"
#include "cli/try.h"
#include "lib/version.h"
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
    "  -t, --check-config   check the configuration and all files that it names\n"
    "  -T, --print-config   print the configuration with all defaults\n"
    "      --print-nginx    print the nginx upstream blocks for it\n"
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

enum mode { RUN, CHECK, PRINT_CONFIG, PRINT_NGINX, TRY, SIGN, WATCH };

static struct conf *load(const char *path)
{
    char *error = NULL;
    struct conf *conf = conf_load(path, files_new(), &error);
    if (conf == NULL)
        fprintf(stderr, "taskproxy: %s\n", error);
    free(error);
    return conf;
}

/* Checks all provider files of the folder, even if no route names them. */
static int check(const char *path, struct conf *conf)
{
    char *error = conf_check_providers(conf);
    if (error == NULL)
        error = master_refuses(conf);
    if (error == NULL)
        printf("%s: ok\n", path);
    else
        fprintf(stderr, "taskproxy: %s\n", error);
    int status = error == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
    free(error);
    conf_free(conf);
    return status;
}

static int put_out(struct buf *out)
{
    int result = fwrite(out->data, 1, out->len, stdout) == out->len ? EXIT_SUCCESS : EXIT_FAILURE;
    buf_done(out);
    return result;
}

static int print(void (*write)(const struct conf *, struct buf *), struct conf *conf)
{
    struct buf out;
    buf_init(&out, 16 * 1024 * 1024);
    write(conf, &out);
    conf_free(conf);
    return put_out(&out);
}

/* For conf/man/keys.awk, which makes the reference in taskproxy.json(5). */
static int print_tables(void)
{
    struct buf out;
    buf_init(&out, 1024 * 1024);
    buf_puts(&out, "KEYS OF THE CONFIGURATION\t\n");
    schema_describe(&conf_table, &out);
    buf_puts(&out, "KEYS OF THE TEAMS FILE\t/NAME\n");
    schema_describe(&team_table, &out);
    buf_puts(&out, "KEYS OF A PROVIDER FILE\t\n");
    schema_describe(&provider_table, &out);
    return put_out(&out);
}

static int sign(struct conf *conf, const struct sign_order *order)
{
    int status = sign_link(conf, order);
    conf_free(conf);
    return status;
}

static int run_try(const char *conf_path, const char *provider, int argc, char **argv)
{
    if (argc < 1 || argc > 2) {
        fputs("taskproxy: --try requires a provider and one or two answer files\n", stderr);
        return EXIT_FAILURE;
    }
    const char *slash = strrchr(conf_path, '/');
    char *path = strchr(provider, '/') || strchr(provider, '.')
                     ? xstrdup(provider)
                     : xasprintf("%.*sproviders/%s.json", slash ? (int)(slash - conf_path) + 1 : 0, conf_path,
                                 provider);
    int status = try_answer(path, argv[0], argc == 2 ? argv[1] : NULL);
    free(path);
    return status;
}

static int run(enum mode mode, const char *path, const struct sign_order *order)
{
    if (mode == RUN)
        master_block_signals();
    struct conf *conf = load(path);
    if (conf == NULL)
        return EXIT_FAILURE;
    switch (mode) {
    case CHECK:
        return check(path, conf);
    case PRINT_CONFIG:
        return print(conf_print, conf);
    case PRINT_NGINX:
        return print(route_print_nginx, conf);
    case SIGN:
        return sign(conf, order);
    default:
        return master_main(path, conf);
    }
}

static int run_cgi(void)
{
    const char *path = getenv("TASKPROXY_CONFIG");
    struct conf *conf = load(path ? path : DEFAULT_CONF);
    if (conf != NULL)
        return worker_cgi(conf);
    fputs(
        "Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\ntaskproxy is not configured.\n",
        stdout);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    enum {
        OPT_PRINT_NGINX = 256,
        OPT_PRINT_TABLES,
        OPT_TRY,
        OPT_NEW_TOKEN,
        OPT_SIGN,
        OPT_TEAM,
        OPT_TASK,
        OPT_TTL,
        OPT_WATCH,
        OPT_URL,
        OPT_TOKEN_FILE
    };
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check-config", no_argument, NULL, 't'},
                                            {"print-config", no_argument, NULL, 'T'},
                                            {"print-nginx", no_argument, NULL, OPT_PRINT_NGINX},
                                            {"print-tables", no_argument, NULL, OPT_PRINT_TABLES},
                                            {"try", required_argument, NULL, OPT_TRY},
                                            {"new-token", no_argument, NULL, OPT_NEW_TOKEN},
                                            {"sign", no_argument, NULL, OPT_SIGN},
                                            {"team", required_argument, NULL, OPT_TEAM},
                                            {"task", required_argument, NULL, OPT_TASK},
                                            {"ttl", required_argument, NULL, OPT_TTL},
                                            {"watch", required_argument, NULL, OPT_WATCH},
                                            {"url", required_argument, NULL, OPT_URL},
                                            {"team-token-file", required_argument, NULL, OPT_TOKEN_FILE},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    if (getenv("GATEWAY_INTERFACE") != NULL) /* before any argument: clients choose those of a CGI program */
        return run_cgi();
    if (argc == 5 && strcmp(argv[1], "--worker") == 0) /* started by the master */
        return worker_main(atoi(argv[2]), atoi(argv[3]), argv[4]);

    const char *path = DEFAULT_CONF, *provider = NULL;
    struct sign_order order = {0};
    struct follow_order follow = {0};
    enum mode mode = RUN;
    int option;
    while ((option = getopt_long(argc, argv, "c:tTVh", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case 't':
            mode = CHECK;
            break;
        case 'T':
            mode = PRINT_CONFIG;
            break;
        case OPT_PRINT_NGINX:
            mode = PRINT_NGINX;
            break;
        case OPT_PRINT_TABLES: /* for the build; not documented */
            return print_tables();
        case OPT_TRY:
            mode = TRY;
            provider = optarg;
            break;
        case OPT_NEW_TOKEN:
            return sign_new_token();
        case OPT_SIGN:
            mode = SIGN;
            break;
        case OPT_TEAM:
            order.team = optarg;
            break;
        case OPT_TASK:
            order.task = optarg;
            break;
        case OPT_TTL:
            order.ttl = optarg;
            break;
        case OPT_WATCH:
            mode = WATCH;
            follow.target = optarg;
            break;
        case OPT_URL:
            follow.base = optarg;
            break;
        case OPT_TOKEN_FILE:
            follow.token_file = optarg;
            break;
        case 'V':
            puts("taskproxy " TASKPROXY_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        default:
            fputs(usage, stderr);
            return mode == WATCH ? FOLLOW_USAGE : EXIT_FAILURE;
        }
    }
    if (mode == TRY)
        return run_try(path, provider, argc - optind, argv + optind);
    if (mode != WATCH && (follow.base != NULL || follow.token_file != NULL)) {
        fputs("taskproxy: --url and --team-token-file are options of --watch\n", stderr);
        return EXIT_FAILURE;
    }
    if (mode != SIGN && (order.team != NULL || order.task != NULL || order.ttl != NULL)) {
        fputs("taskproxy: --team, --task and --ttl are options of --sign\n", stderr);
        return EXIT_FAILURE;
    }
    if (optind < argc) {
        fprintf(stderr, "taskproxy: unexpected argument \"%s\"\n", argv[optind]);
        return mode == WATCH ? FOLLOW_USAGE : EXIT_FAILURE;
    }
    if (mode == WATCH)
        return (int)follow_task(&follow);
    return run(mode, path, &order);
}
