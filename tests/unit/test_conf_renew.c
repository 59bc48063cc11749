/* The configuration in force with changed files: each is judged on its own. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/conf.h"

#define TEAM(providers, secret)                                                                              \
    "{\"web\":{\"token_sha256\":[],\"providers\":[\"" providers "\"],\"link_secret_file\":\"" secret "\"}}"
#define CONF                                                                                                 \
    "{\"upstreams\":{\"one\":{\"base_url\":\"https://a\",\"key_files\":[\"key-1\"]},"                        \
    "\"two\":{\"base_url\":\"https://b\",\"key_files\":[\"key-2\"]}},"                                       \
    "\"routes\":[{\"provider\":\"p\",\"upstream\":\"one\"}],"                                                \
    "\"redis\":{\"address\":\"127.0.0.1:6379\",\"username\":\"u\",\"password_file\":\"password\"},"          \
    "\"access\":{\"mode\":\"teams\",\"teams_file\":\"teams\",\"ownership\":\"first-reader\"}}"
#define PROVIDER                                                                                             \
    "{\"name\":\"p\",\"path\":\"/p/{task_id}\",\"task_id\":\"[a-z]+\",\"auth\":{\"header\":\"A\","           \
    "\"value\":\"{key}\"},\"status\":{\"at\":\"/s\"},\"keep\":[\"/s\"],\"identity\":\"/id\"}"

static const char link_a[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                  link_b[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
static char folder[] = "/tmp/test_conf_renew.XXXXXX";
static char *conf_path;
static struct conf *conf;

static char *path_of(const char *name)
{
    return xasprintf("%s/%s", folder, name);
}

static void remove_file(const char *name)
{
    char *path = path_of(name);
    remove(path);
    free(path);
}

/* Replaces the file, so that its stamp changes whatever the resolution of the clock. */
static void put(const char *name, const char *text)
{
    char *path = path_of(name), *fresh = path_of("fresh");
    FILE *file = fopen(fresh, "w");
    fputs(text, file);
    fclose(file);
    chmod(fresh, 0600);
    rename(fresh, path);
    free(fresh);
    free(path);
}

static int make_folder(void **unused __attribute__((unused)))
{
    if (mkdtemp(folder) == NULL)
        return -1;
    conf_path = path_of("conf");
    char *providers = path_of("providers");
    mkdir(providers, 0700);
    free(providers);
    put("providers/p.json", PROVIDER);
    put("conf", CONF);
    return 0;
}

static int remove_folder(void **unused __attribute__((unused)))
{
    static const char *const names[] = {"providers/p.json", "providers", "conf",   "key-1", "key-2",
                                        "password",         "teams",     "link-a", "link-b"};
    for (size_t i = 0; i < NELEMS(names); i++)
        remove_file(names[i]);
    free(conf_path);
    return rmdir(folder);
}

static struct conf *load(struct files *files)
{
    char *error = NULL;
    struct conf *loaded = conf_load(conf_path, files, &error);
    if (loaded == NULL)
        fail_msg("%s", error);
    return loaded;
}

static int write_good_files(void **unused __attribute__((unused)))
{
    put("key-1", "sk-11111111");
    put("key-2", "sk-22222222");
    put("password", "password-1");
    put("link-a", link_a);
    put("link-b", link_b);
    put("teams", TEAM("p", "link-a"));
    conf = load(files_new(FILES_ALL));
    return 0;
}

static int free_conf(void **unused __attribute__((unused)))
{
    conf_free(conf);
    return 0;
}

static void renew(void)
{
    struct conf *was = conf;
    conf = conf_renew(conf_path, was->files);
    conf_free(was);
}

static const struct file *file_of(const char *name)
{
    char *path = path_of(name);
    const struct file *file = files_find(conf->files, path);
    free(path);
    return file;
}

static void assert_refused(const char *name, const char *why)
{
    const struct file *file = file_of(name);
    assert_non_null(file);
    if (file->refused == NULL || strstr(file->refused, why) == NULL)
        fail_msg("%s: %s", name, file->refused ? file->refused : "not refused");
}

static size_t count_refused(void)
{
    const struct file *file;
    size_t n = 0;
    for (size_t i = 0; (file = files_at(conf->files, i)) != NULL; i++)
        n += file->refused != NULL;
    return n;
}

static const char *key(size_t upstream)
{
    return conf_keys(conf_upstream(conf, upstream))[0].text;
}

TEST(bad_file_keeps_its_content_and_good_ones_are_applied)
{
    put("teams", "{");
    put("key-1", "sk-33333333");
    put("key-2", "short");
    renew();
    assert_string_equal(key(0), "sk-33333333");
    assert_string_equal(key(1), "sk-22222222");
    assert_non_null(teams_by_name(&conf->teams, "web"));
    assert_refused("teams", "/teams:1: ");
    assert_refused("key-2", "must contain at least 8 characters");
    assert_int_equal(count_refused(), 2);

    put("key-2", "sk-44444444");
    renew();
    assert_string_equal(key(1), "sk-44444444");
    assert_refused("teams", "/teams:1: ");
    assert_int_equal(count_refused(), 1);

    put("teams", TEAM("p", "link-a"));
    renew();
    assert_int_equal(count_refused(), 0);
}

TEST(removed_file_keeps_its_content)
{
    remove_file("key-1");
    put("link-a", link_b);
    renew();
    assert_string_equal(key(0), "sk-11111111");
    assert_refused("key-1", "cannot be read: No such file or directory");
    assert_string_equal(teams_at(&conf->teams, 0)->plain_link_secrets[0].text, link_b);
}

/* The keys of two accounts must differ, so neither file could be replaced alone. */
TEST(files_that_are_good_only_together_are_applied_together)
{
    put("key-1", "sk-22222222");
    renew();
    assert_refused("key-1", "upstream \"one\" has the same key");
    put("key-2", "sk-11111111");
    renew();
    assert_string_equal(key(0), "sk-22222222");
    assert_string_equal(key(1), "sk-11111111");
    assert_int_equal(count_refused(), 0);
}

TEST(file_that_is_no_longer_named_is_forgotten)
{
    put("key-1", "short");
    put("teams", TEAM("p", "link-b"));
    remove_file("link-a");
    renew();
    assert_null(file_of("link-a"));
    assert_non_null(file_of("link-b"));
    assert_refused("key-1", "must contain at least 8 characters");
    assert_int_equal(count_refused(), 1);
}

TEST(refused_file_is_accepted_when_the_file_that_it_names_is_mended)
{
    put("link-b", "short");
    put("teams", TEAM("p", "link-b"));
    renew();
    assert_refused("teams", "/link-b\" must contain at least 32 characters");
    put("link-b", link_b);
    renew();
    assert_int_equal(count_refused(), 0);
    assert_string_equal(teams_at(&conf->teams, 0)->plain_link_secrets[0].text, link_b);
}

TEST(unusable_password_of_redis_is_an_error_unless_files_may_be_missing)
{
    char *error = NULL;
    put("password", "two words");
    assert_null(conf_load(conf_path, files_new(FILES_ALL), &error));
    assert_non_null(strstr(error, "/redis/password_file: "));
    conf_free(conf);
    conf = load(files_new(FILES_ALLOW_MISSING));
    assert_null(conf->redis.password.text);
    assert_refused("password", error);
    free(error);

    struct files_image image; /* a worker does without it, too */
    assert_int_equal(files_seal(conf->files, &image), 0);
    struct conf *of_worker = load(files_unseal(image.fd));
    assert_null(of_worker->redis.password.text);
    conf_free(of_worker);
    files_image_done(&image);

    put("key-1", "sk-33333333");
    remove_file("password");
    renew();
    assert_string_equal(key(0), "sk-33333333");
    assert_null(conf->redis.password.text);
    assert_refused("password", "No such file or directory");

    put("password", "password-2");
    renew();
    assert_string_equal(conf->redis.password.text, "password-2");
    assert_int_equal(count_refused(), 0);
}

TEST(reasons_can_be_moved_to_an_equal_set)
{
    const char *first;
    put("key-1", "short");
    put("key-2", "sk-22222222"); /* touched */
    struct conf *renewed = conf_renew(conf_path, conf->files);
    assert_int_equal(files_changed(conf->files, renewed->files, &first), 0);
    files_take_refusals(conf->files, renewed->files);
    conf_free(renewed);
    assert_refused("key-1", "must contain at least 8 characters");
    assert_true(files_stamp(conf->files, true) == files_stamp(conf->files, false));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, write_good_files, free_conf)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(bad_file_keeps_its_content_and_good_ones_are_applied),
        CASE(removed_file_keeps_its_content),
        CASE(files_that_are_good_only_together_are_applied_together),
        CASE(file_that_is_no_longer_named_is_forgotten),
        CASE(refused_file_is_accepted_when_the_file_that_it_names_is_mended),
        CASE(unusable_password_of_redis_is_an_error_unless_files_may_be_missing),
        CASE(reasons_can_be_moved_to_an_equal_set),
    };
    return cmocka_run_group_tests_name("conf_renew", tests, make_folder, remove_folder);
}
