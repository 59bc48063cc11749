/* unified: the view that has the same form for every provider. */
#ifndef UNIFIED_H
#define UNIFIED_H

#include "view.h"

/* Writes view->views[VIEW_UNIFIED] from the upstream's document, whose state and native view are in `view`
 * already, and sets view->created_at; an expires_at of the body may make view->urls_expire_at earlier. */
void unified_write(const struct view_question *question, struct json_object *doc, struct view *view);

#endif
