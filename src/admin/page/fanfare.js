/*! Fanfare's client: the plain protocol in browsers and Node. Manual: fanfare.d.ts, source: fanfare.src.js */
const e=[1e3,1002,1003,1007,1008,1009,4002,4003],n=()=>{},o=(e,n)=>Object.assign(Error(n),{code:e})
;export function Fanfare(t="/ws/connect",s={}){
const c=this,i=new Map,r=new Map,a={},{minDelay:l=500,maxDelay:p=3e4,getToken:d,WebSocket:u=globalThis.WebSocket}=s
;let f,h,m,b,y,g,v,w,{token:T}=s,_=0,E=0,M=0
;(t=new URL(t,globalThis.location?.href)).protocol=t.protocol.replace("http","ws")
;const k=(e,n)=>a[e]?.forEach(e=>e(n)),S=(e,n)=>k("state",{state:c.state=e,...n
}),x=e=>f.send(JSON.stringify(e));function D(e,n,t){
return"closed"===c.state?t(o("disconnected","closed")):r.size>=1e3?t(o("too_many_commands","too many commands pending")):(e.id=++_,
r.set(_,{m:e,done:n,fail:t,sent:h}),void(h&&x(e)))}const O=e=>new Promise((n,o)=>D(e,n,o));function j(e){
const o={channel:e,options:{},given:!0,unsubscribe:()=>{i.get(e)===o&&(i.delete(e),h&&D({type:"unsubscribe",
channel:e},n,n))}};return i.set(e,o),o}function U(e){
const{channel:n,options:o,position:t}=e,s=()=>i.get(n)===e;clearTimeout(e.retry),e.live=!1,D({
type:"subscribe",channel:n,recover:t,presence:o.presence},n=>s()&&J(e,n),t=>{
"disconnected"!==t.code&&s()&&(/^(broker_)?unavailable$/.test(t.code)?e.retry=setTimeout(()=>h&&s()&&U(e),2e3*(1+Math.random())):(i.delete(n),
o.onUnsubscribed?.(t)))})}function J(e,n){e.live=!0,e.position={epoch:n.epoch??"",offset:n.offset??0},
e.options.onSubscribed?.(n),!1===n.recovered&&e.options.onGap?.({...n,dropped:null})}function N(e){
const{type:n,channel:t,id:s}=e,a=i.get(t),l=r.get(s);if("connected"===n&&function(e){c.clientId=e.client_id,
h=!0,m=Date.now(),v=1e3*(e.ping_interval||25),w=1e3*(e.inactivity_timeout||60);for(const n in e.channels){
const o=i.get(n)??j(n);o.live=!o.position&&!o.options.presence,o.position??=e.channels[n]}
i.forEach(e=>e.live||U(e)),r.forEach(e=>{e.sent||x(e.m),e.sent=!0}),W(e.expires_in),S("connected")}(e),
clearTimeout(y),y=setTimeout(()=>{x({type:"ping"}),y=setTimeout(z,w,4004,"silence")},v),
r.delete(s))return"error"===n?l.fail(o(e.code,e.message)):l.done(e);if("subscribed"===n)return J(a??j(t),e)
;if("unsubscribed"===n)i.delete(t);else if(t&&(!a||!function(e,{type:n,epoch:o,offset:t}){
const s=e.position??{};if(!e.live)return!1;if(o&&o!==s.epoch)e.position={epoch:o,offset:t
};else if(t&&"publication"===n){if(t<=s.offset)return!1;e.position={...s,offset:t}}return!0}(a,e)))return
;a?.options["on"+n[0].toUpperCase()+n.slice(1)]?.(e),k(n,e)}function W(e){clearTimeout(g),
d&&e&&(g=setTimeout(async()=>{try{T=await d(),W((await O({type:"refresh",token:T})).expires_in)}catch{
h&&W(Math.max(e/5,1))}},Math.min(800*e,2**31-1)))}function z(e,o){f&&(f.onmessage=f.onclose=null,f.onerror=n,
f.close()),C(e,o)}function C(n,t){[b,y,g].forEach(clearTimeout),h&&Date.now()-m>p&&(M=0),
!d||4001!==n&&h||(T=null),E++,h=f=b=null
;const s=e.includes(n)||4001===n&&!d,a=1011===n||1013===n,u=Math.min(p,l*2**M++)*(a+Math.random())
;s||(b=setTimeout(c.connect,u)),i.forEach(e=>{e.live=!1,!1===e.options.recover&&(e.position=void 0)}),
r.forEach((e,n)=>{(s||e.sent)&&(r.delete(n),e.fail(o("disconnected",t)))}),S(s?"closed":"connecting",{code:n,
reason:t,delay:u})}c.connect=async()=>{if("closed"!==c.state&&!b)return;clearTimeout(b),b=null;const e=++E
;S("connecting");try{d&&(T??=await d())}catch(n){e===E&&C(1011,n.message)}
e===E&&(f=new u(t,["fanfare.json",...T?["bearer."+T]:[]]),f.onmessage=e=>N(JSON.parse(e.data)),
f.onclose=e=>C(e.code,e.reason),
f.onerror=()=>e===E&&!h&&z(1006,"refused"),y=setTimeout(z,2e4,4004,"no answer"))},c.close=()=>z(1e3,"closed"),
c.on=(e,n)=>((a[e]??=new Set).add(n),()=>a[e].delete(n)),c.subscribe=(e,n={})=>{const t=i.get(e)??j(e)
;if(!t.given)throw o("already_subscribed",e);return Object.assign(t,{options:n,given:!1}),
n.recover?.epoch&&(t.position=n.recover),!h||t.live&&!n.presence||U(t),t},c.publish=(e,n,o)=>O({...o,
type:"publish",channel:e,data:n}),c.history=(e,n)=>O({...n,type:"history",channel:e}),c.presence=e=>O({
type:"presence",channel:e}),c.state="closed",c.connect()}
