/* identity: see identity.h. */
#include "server/identity.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct passwd *account_of(const char *user)
{
    int64_t number;
    return parse_int(user, &number) == 0 ? getpwuid((uid_t)number) : getpwnam(user);
}

int identity_user(const char *user, uid_t *ret_uid)
{
    int64_t number;
    const struct passwd *account = account_of(user);
    if (account != NULL)
        *ret_uid = account->pw_uid;
    else if (parse_int(user, &number) == 0)
        *ret_uid = (uid_t)number;
    else
        return -1;
    return 0;
}

int identity_group(const char *group, gid_t *ret_gid)
{
    int64_t number;
    const struct group *entry;
    if (parse_int(group, &number) == 0)
        *ret_gid = (gid_t)number;
    else if ((entry = getgrnam(group)) != NULL)
        *ret_gid = entry->gr_gid;
    else
        return -1;
    return 0;
}

static int set_groups(const char *user, uid_t uid)
{
    const struct passwd *account = account_of(user);
    gid_t gid = account != NULL ? account->pw_gid : (gid_t)uid;
    int result = account != NULL ? initgroups(account->pw_name, gid) : setgroups(0, NULL);
    return result < 0 ? result : setgid(gid);
}

static char *leave_root(const char *user)
{
    uid_t uid;
    if (identity_user(user, &uid) < 0)
        return xasprintf("there is no user \"%s\" to run as", user);
    if (set_groups(user, uid) < 0 || setuid(uid) < 0)
        return xasprintf("cannot become the user \"%s\": %s", user, strerror(errno));
    return NULL;
}

/* Drops all permitted capabilities, and with them the ambient ones that an unprivileged master may have. */
static char *give_up_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capset, &header, none) < 0)
        return xasprintf("cannot give up capabilities: %s", strerror(errno));
    return NULL;
}

char *identity_become(const char *user)
{
    char *error = geteuid() == 0 ? leave_root(user) : NULL;
    return error != NULL ? error : give_up_capabilities();
}
