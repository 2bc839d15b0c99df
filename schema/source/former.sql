-- What earlier versions made and this one does not call, once the transactions that may be inside have ended: mirror.mark was
-- open to PUBLIC and believed everything.
drop function if exists mirror.mark(text, text[], text[], text[], boolean[]),
                        mirror.mark(text, text, text, boolean, text[], text[], text[], boolean[]);
