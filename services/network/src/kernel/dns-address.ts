/** Where containers of user-defined networks find their name server. */
export const dnsAddress = '127.0.0.11';
